//! The functions there are, and of what types they are.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::types::Type;

/// One form of a function. The target of a method is the first of its arguments.
pub(crate) struct Signature {
    pub(crate) is_method: bool,
    pub(crate) arguments: Vec<Type>,
    pub(crate) result: Type,
}

/// The forms of a function, by its name.
pub(crate) fn of(function: &str) -> &'static [Signature] {
    TABLE.get(function).map_or(&[], Vec::as_slice)
}

/// Whether this is a function with this full name, `math.ceil`.
pub(crate) fn is_function(name: &str) -> bool {
    of(name).iter().any(|signature| !signature.is_method)
}

/// `T.f(A) -> R` is a method, `f(A) -> R` a function; upper case letters stand for any type. From cel-go's standard library and
/// its extensions, and Kubernetes' libraries
/// (<https://github.com/kubernetes/kubernetes/tree/master/staging/src/k8s.io/apiserver/pkg/cel/library>).
const SIGNATURES: &str = "
_==_(A, A) -> bool
_!=_(A, A) -> bool
_<_(bool, bool) -> bool | (int, int) | (int, double) | (int, uint) | (uint, uint) | (uint, double) | (uint, int) | (double, double) | (double, int) | (double, uint) | (string, string) | (bytes, bytes) | (timestamp, timestamp) | (duration, duration)
_<=_(bool, bool) -> bool | (int, int) | (int, double) | (int, uint) | (uint, uint) | (uint, double) | (uint, int) | (double, double) | (double, int) | (double, uint) | (string, string) | (bytes, bytes) | (timestamp, timestamp) | (duration, duration)
_>_(bool, bool) -> bool | (int, int) | (int, double) | (int, uint) | (uint, uint) | (uint, double) | (uint, int) | (double, double) | (double, int) | (double, uint) | (string, string) | (bytes, bytes) | (timestamp, timestamp) | (duration, duration)
_>=_(bool, bool) -> bool | (int, int) | (int, double) | (int, uint) | (uint, uint) | (uint, double) | (uint, int) | (double, double) | (double, int) | (double, uint) | (string, string) | (bytes, bytes) | (timestamp, timestamp) | (duration, duration)
_+_(int, int) -> int
_+_(uint, uint) -> uint
_+_(double, double) -> double
_+_(string, string) -> string
_+_(bytes, bytes) -> bytes
_+_(list<A>, list<A>) -> list<A>
_+_(duration, duration) -> duration
_+_(duration, timestamp) -> timestamp
_+_(timestamp, duration) -> timestamp
_-_(int, int) -> int
_-_(uint, uint) -> uint
_-_(double, double) -> double
_-_(duration, duration) -> duration
_-_(timestamp, duration) -> timestamp
_-_(timestamp, timestamp) -> duration
_*_(int, int) -> int
_*_(uint, uint) -> uint
_*_(double, double) -> double
_/_(int, int) -> int
_/_(uint, uint) -> uint
_/_(double, double) -> double
_%_(int, int) -> int
_%_(uint, uint) -> uint
!_(bool) -> bool
-_(int) -> int
-_(double) -> double
-_(duration) -> duration
@in(A, list<A>) -> bool
@in(A, map<A, B>) -> bool
dyn(A) -> dyn
type(A) -> type<A>
bool(bool) -> bool | (string)
int(int) -> int | (uint) | (double) | (string) | (timestamp) | (duration)
uint(uint) -> uint | (int) | (double) | (string)
double(double) -> double | (int) | (uint) | (string)
string(string) -> string | (bool) | (int) | (uint) | (double) | (bytes) | (timestamp) | (duration) | (net.IP) | (net.CIDR)
bytes(bytes) -> bytes | (string)
duration(duration) -> duration | (string) | (int)
timestamp(timestamp) -> timestamp | (string) | (int)
size(string) -> int | (bytes) | (list<A>) | (map<A, B>)
string.size() -> int
bytes.size() -> int
list<A>.size() -> int
map<A, B>.size() -> int
string.contains(string) -> bool
string.startsWith(string) -> bool
string.endsWith(string) -> bool
string.matches(string) -> bool
matches(string, string) -> bool
timestamp.getFullYear() -> int | (string)
timestamp.getMonth() -> int | (string)
timestamp.getDayOfYear() -> int | (string)
timestamp.getDayOfMonth() -> int | (string)
timestamp.getDate() -> int | (string)
timestamp.getDayOfWeek() -> int | (string)
timestamp.getHours() -> int | (string)
timestamp.getMinutes() -> int | (string)
timestamp.getSeconds() -> int | (string)
timestamp.getMilliseconds() -> int | (string)
duration.getHours() -> int
duration.getMinutes() -> int
duration.getSeconds() -> int
duration.getMilliseconds() -> int
optional.none() -> optional<A>
optional.of(A) -> optional<A>
optional.ofNonZeroValue(A) -> optional<A>
optional<A>.hasValue() -> bool
optional<A>.value() -> A
optional<A>.or(optional<A>) -> optional<A>
optional<A>.orValue(A) -> A
string.charAt(int) -> string
string.indexOf(string) -> int | (string, int)
string.lastIndexOf(string) -> int | (string, int)
string.lowerAscii() -> string
string.upperAscii() -> string
string.replace(string, string) -> string | (string, string, int)
string.split(string) -> list<string> | (string, int)
string.substring(int) -> string | (int, int)
string.trim() -> string
string.reverse() -> string
string.format(list<dyn>) -> string
string.find(string) -> string
string.findAll(string) -> list<string> | (string, int)
strings.quote(string) -> string
list<string>.join() -> string | (string)
list<A>.isSorted() -> bool
list<A>.sum() -> A
list<A>.min() -> A
list<A>.max() -> A
list<A>.indexOf(A) -> int
list<A>.lastIndexOf(A) -> int
list<A>.slice(int, int) -> list<A>
list<A>.flatten() -> list<dyn> | (int)
list<A>.sort() -> list<A>
list<A>.distinct() -> list<A>
list<A>.reverse() -> list<A>
list<A>.first() -> optional<A>
list<A>.last() -> optional<A>
lists.range(int) -> list<int>
sets.contains(list<A>, list<A>) -> bool
sets.equivalent(list<A>, list<A>) -> bool
sets.intersects(list<A>, list<A>) -> bool
math.ceil(double) -> double
math.floor(double) -> double
math.round(double) -> double
math.trunc(double) -> double
math.sqrt(double) -> double | (int) | (uint)
math.isInf(double) -> bool
math.isNaN(double) -> bool
math.isFinite(double) -> bool
math.abs(int) -> int
math.abs(uint) -> uint
math.abs(double) -> double
math.sign(int) -> int
math.sign(uint) -> uint
math.sign(double) -> double
math.bitAnd(int, int) -> int
math.bitAnd(uint, uint) -> uint
math.bitOr(int, int) -> int
math.bitOr(uint, uint) -> uint
math.bitXor(int, int) -> int
math.bitXor(uint, uint) -> uint
math.bitNot(int) -> int
math.bitNot(uint) -> uint
math.bitShiftLeft(int, int) -> int
math.bitShiftLeft(uint, int) -> uint
math.bitShiftRight(int, int) -> int
math.bitShiftRight(uint, int) -> uint
math.greatest(dyn) -> dyn | (dyn, dyn) | (dyn, dyn, dyn) | (dyn, dyn, dyn, dyn)
math.least(dyn) -> dyn | (dyn, dyn) | (dyn, dyn, dyn) | (dyn, dyn, dyn, dyn)
base64.encode(bytes) -> string
base64.decode(string) -> bytes
jsonpatch.escapeKey(string) -> string
url(string) -> kubernetes.URL
isURL(string) -> bool
kubernetes.URL.getScheme() -> string
kubernetes.URL.getHost() -> string
kubernetes.URL.getHostname() -> string
kubernetes.URL.getPort() -> string
kubernetes.URL.getEscapedPath() -> string
kubernetes.URL.getQuery() -> map<string, list<string>>
ip(string) -> net.IP
isIP(string) -> bool
ip.isCanonical(string) -> bool
net.IP.family() -> int
net.IP.isUnspecified() -> bool
net.IP.isLoopback() -> bool
net.IP.isLinkLocalMulticast() -> bool
net.IP.isLinkLocalUnicast() -> bool
net.IP.isGlobalUnicast() -> bool
cidr(string) -> net.CIDR
isCIDR(string) -> bool
net.CIDR.containsIP(string) -> bool | (net.IP)
net.CIDR.containsCIDR(string) -> bool | (net.CIDR)
net.CIDR.ip() -> net.IP
net.CIDR.masked() -> net.CIDR
net.CIDR.prefixLength() -> int
quantity(string) -> kubernetes.Quantity
isQuantity(string) -> bool
kubernetes.Quantity.sign() -> int
kubernetes.Quantity.isInteger() -> bool
kubernetes.Quantity.asInteger() -> int
kubernetes.Quantity.asApproximateFloat() -> double
kubernetes.Quantity.add(kubernetes.Quantity) -> kubernetes.Quantity | (int)
kubernetes.Quantity.sub(kubernetes.Quantity) -> kubernetes.Quantity | (int)
kubernetes.Quantity.isLessThan(kubernetes.Quantity) -> bool
kubernetes.Quantity.isGreaterThan(kubernetes.Quantity) -> bool
kubernetes.Quantity.compareTo(kubernetes.Quantity) -> int
semver(string) -> kubernetes.Semver | (string, bool)
isSemver(string) -> bool | (string, bool)
kubernetes.Semver.major() -> int
kubernetes.Semver.minor() -> int
kubernetes.Semver.patch() -> int
kubernetes.Semver.isLessThan(kubernetes.Semver) -> bool
kubernetes.Semver.isGreaterThan(kubernetes.Semver) -> bool
kubernetes.Semver.compareTo(kubernetes.Semver) -> int
format.named(string) -> optional<kubernetes.NamedFormat>
format.dns1123Label() -> kubernetes.NamedFormat
format.dns1123Subdomain() -> kubernetes.NamedFormat
format.dns1035Label() -> kubernetes.NamedFormat
format.qualifiedName() -> kubernetes.NamedFormat
format.dns1123LabelPrefix() -> kubernetes.NamedFormat
format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat
format.dns1035LabelPrefix() -> kubernetes.NamedFormat
format.labelValue() -> kubernetes.NamedFormat
format.uri() -> kubernetes.NamedFormat
format.uuid() -> kubernetes.NamedFormat
format.byte() -> kubernetes.NamedFormat
format.date() -> kubernetes.NamedFormat
format.datetime() -> kubernetes.NamedFormat
kubernetes.NamedFormat.validate(string) -> optional<list<string>>
kubernetes.authorization.Authorizer.path(string) -> kubernetes.authorization.PathCheck
kubernetes.authorization.Authorizer.group(string) -> kubernetes.authorization.GroupCheck
kubernetes.authorization.Authorizer.serviceAccount(string, string) -> kubernetes.authorization.Authorizer
kubernetes.authorization.PathCheck.check(string) -> kubernetes.authorization.Decision
kubernetes.authorization.GroupCheck.resource(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck.subresource(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck.namespace(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck.name(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck.fieldSelector(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck.labelSelector(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck.check(string) -> kubernetes.authorization.Decision
kubernetes.authorization.Decision.allowed() -> bool
kubernetes.authorization.Decision.reason() -> string
kubernetes.authorization.Decision.error() -> string
kubernetes.authorization.Decision.errored() -> bool
";

/// Namespaces of functions, whose names look like those of methods.
const NAMESPACES: [&str; 10] =
    ["optional", "strings", "lists", "sets", "math", "base64", "jsonpatch", "ip", "format", "cel"];

static TABLE: LazyLock<HashMap<String, Vec<Signature>>> = LazyLock::new(|| {
    let mut table: HashMap<String, Vec<Signature>> = HashMap::new();
    for line in SIGNATURES.lines() {
        // What the forms after `|` share with the first is its target and its result.
        let Some((call, rest)) = line.split_once(" -> ") else { continue };
        let Some((path, arguments)) = call.rsplit_once('(').or(call.split_once('(')) else {
            continue;
        };
        let (target, name) = match path.rsplit_once('.') {
            Some((namespace, _)) if NAMESPACES.contains(&namespace) => (None, path),
            Some((target, name)) => (Some(read(target)), name),
            None => (None, path),
        };
        let mut forms = rest.split(" | ");
        let result = read(forms.next().unwrap_or_default());
        for arguments in std::iter::once(arguments).chain(forms) {
            let arguments = arguments.trim_matches(['(', ')']);
            let arguments = split(arguments).into_iter().map(read);
            table.entry(name.to_owned()).or_default().push(Signature {
                is_method: target.is_some(),
                arguments: target.clone().into_iter().chain(arguments).collect(),
                result: result.clone(),
            });
        }
    }
    table
});

/// `a, map<b, c>` at the commas that are in no brackets.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, sign) in list.char_indices() {
        match sign {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => (),
        }
    }
    let last = list[start..].trim();
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}

fn read(name: &str) -> Type {
    if let Some((outer, inner)) = name.strip_suffix('>').and_then(|name| name.split_once('<')) {
        let mut inner = split(inner).into_iter().map(|part| Arc::new(read(part)));
        let first = inner.next().unwrap_or_else(|| Arc::new(Type::Dyn));
        return match outer {
            "list" => Type::List(first),
            "optional" => Type::Optional(first),
            "type" => Type::Type(first),
            _ => Type::Map(first, inner.next().unwrap_or_else(|| Arc::new(Type::Dyn))),
        };
    }
    match name {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        parameter if parameter.len() == 1 => {
            Type::Parameter(parameter.chars().next().unwrap_or('A'))
        }
        other => Type::Opaque(other.into()),
    }
}
