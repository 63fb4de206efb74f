//! What expressions mean, by table.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::{
    Environment, EvaluationError, Meter, ObjectType, Program, Scope, Type, Value, from_json,
    to_json,
};

struct Variables(BTreeMap<&'static str, Value>);

impl Scope for Variables {
    fn variable(&self, name: &str, _: &mut Meter) -> Option<Result<Value, EvaluationError>> {
        self.0.get(name).cloned().map(Ok)
    }
}

/// An object type of any name, whose fields are objects of types below it, or anything.
struct Below(String);

impl ObjectType for Below {
    fn name(&self) -> String {
        self.0.clone()
    }

    fn field(&self, name: &str) -> Option<Type> {
        (name != "nothing").then_some(Type::Dyn)
    }
}

struct Spec;

impl ObjectType for Spec {
    fn name(&self) -> String {
        "Spec".to_owned()
    }

    fn field(&self, name: &str) -> Option<Type> {
        match name {
            "replicas" => Some(Type::Int),
            "name" => Some(Type::String),
            "tags" => Some(Type::list(Type::String)),
            "labels" => Some(Type::map(Type::String)),
            _ => None,
        }
    }
}

fn environment() -> Environment {
    Environment::default()
        .with("object", Type::Dyn)
        .with("spec", Type::Object(Arc::new(Spec)))
        .with_types(|name| {
            let is_ours = name == "Object" || name.starts_with("Object.");
            is_ours.then(|| Arc::new(Below(name.to_owned())) as Arc<dyn ObjectType>)
        })
}

fn variables() -> Variables {
    let object = json!({ "a": 1, "name": "web-1", "spec": { "replicas": 3, "list": [1, 2, 3], "x-y": true, "empty": null },
        "labels": { "app": "web", "tier": "front" }, "big": 1.5, "containers": [{ "name": "a", "image": "x:1" }, { "name": "b" }] });
    let spec = json!({ "replicas": 3, "name": "n", "tags": ["t"], "labels": { "a": "b" } });
    Variables([("object", from_json(&object)), ("spec", from_json(&spec))].into())
}

#[track_caller]
fn compile(text: &str) -> Program {
    match environment().compile(text) {
        Ok(program) => program,
        Err(problems) => panic!("{text}: {problems}"),
    }
}

fn evaluate(text: &str, meter: &mut Meter) -> Result<Json, String> {
    let value = compile(text).evaluate(&variables(), meter).map_err(|error| error.to_string())?;
    to_json(&value, meter).map_err(|error| error.to_string())
}

#[track_caller]
fn check(text: &str, wanted: Json) {
    assert_eq!(evaluate(text, &mut Meter::new(1_000_000)), Ok(wanted), "{text}");
}

#[track_caller]
fn fails(text: &str, wanted: &str) {
    assert_eq!(evaluate(text, &mut Meter::new(1_000_000)), Err(wanted.to_owned()), "{text}");
}

#[track_caller]
fn refused(text: &str, wanted: &str) {
    let problems = environment().compile(text).expect_err(text).to_string();
    assert_eq!(problems, wanted, "{text}");
}

#[track_caller]
fn all_hold(texts: &[&str]) {
    for text in texts {
        check(text, json!(true));
    }
}

#[test]
fn literals_and_operators() {
    check("1 + 2 * 3 - 4 / 2 % 3", json!(5));
    check("-9223372036854775808", json!(i64::MIN));
    check("0x10 + 1", json!(17));
    check("1.5e2 + .5", json!(150.5));
    check(r#""a\n\x41\u00e9\101" + 'b' + r'\n' + '''x"y'''"#, json!("a\nAéAb\\nx\"y"));
    check("b'ab\\xff'", json!("YWL/"));
    check("[1, 'a', null, 2u]", json!([1, "a", null, 2]));
    check("{'a': 1, 'b': [2]}", json!({ "a": 1, "b": [2] }));
    check("!!true", json!(true));
    check("!!!true", json!(false));
    all_hold(&[
        "1 < 2 && 2.0 >= 2 && 'a' < 'b' || false",
        "dyn(1) == 1.0 && dyn(1u) == 1",
        "dyn('1') != 1",
        "[1, 2] == [1, 2] && {'a': [1]} == {'a': [1]}",
        "2 in [1, 2] && 'a' in {'a': 1} && !('b' in {'a': 1})",
        "true ? true : false",
        "[1, 2][1] == 2 && {'a': 1}['a'] == 1",
        "// a comment\n true",
        "type(1) == int && type('a') == string && type([1]) == list && type(type(1)) == type",
        "duration('1h') + duration('30m') == duration('5400s')",
        "timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')",
        "timestamp('2024-03-05T01:02:03Z').getMonth() == 2",
        "timestamp('2024-03-05T01:02:03Z').getHours('+02:00') == 3",
        "timestamp('2024-07-05T23:02:03Z').getHours('Europe/Berlin') == 1 && timestamp('2024-07-05T23:02:03Z').getDate('Europe/Berlin') == 6",
        "'2024'.find('[0-9]+') == '2024' && 'a1b2'.findAll('[0-9]', 1) == ['1'] && 'a'.find('b') == ''",
        "string(timestamp('2024-03-05T01:02:03Z')) == '2024-03-05T01:02:03Z'",
        "string(duration('90m')) == '5400s' && string(1.5) == '1.5' && int('7') == 7 && double(2) == 2.0",
    ]);
    fails("1 / 0", "division by zero");
    fails("9223372036854775807 + 1", "integer overflow");
    fails("int('a')", "type conversion error from 'string' to 'int'");
    fails("[1][1]", "index out of bounds: 1");
}

#[test]
fn fields_and_macros() {
    all_hold(&[
        "object.spec.replicas == 3",
        "has(object.spec.replicas) && !has(object.spec.nothing)",
        "object.spec.list.all(x, x > 0) && object.spec.list.exists(x, x == 2) && object.spec.list.exists_one(x, x == 3)",
        "object.spec.list.map(x, x * 2) == [2, 4, 6] && object.spec.list.map(x, x > 1, x) == [2, 3]",
        "object.spec.list.filter(x, x > 1) == [2, 3]",
        "object.labels.all(k, object.labels[k] != '')",
        "object.labels.all(k, v, k != v) && [5, 6].exists(i, v, i == 1 && v == 6)",
        "[1, 2].transformList(i, v, i + v) == [1, 3]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}",
        "cel.bind(x, object.spec, x.replicas + x.replicas) == 6",
        "object.?spec.?nothing.orValue(7) == 7 && object.?spec.?replicas.orValue(7) == 3",
        "object.?a.hasValue() && !object.?b.hasValue() && object.labels[?'app'].value() == 'web'",
        "[?object.?b, ?object.?a] == [1] && {?'x': object.?b, 'y': 1} == {'y': 1}",
        "object.?a.optMap(x, x + 1).value() == 2 && object.?b.optMap(x, x + 1) == optional.none()",
        "optional.of(1).or(optional.of(2)).value() == 1 && optional.none().orValue(5) == 5",
        "object.containers.all(c, !has(c.image) || c.image.startsWith('x'))",
        "[1, 2].first().value() == 1 && [].last() == optional.none()",
        "spec.tags[0] == 't' && spec.labels.a == 'b'",
    ]);
    fails("object.spec.nothing == 1", "no such key: nothing");
    fails("object.a.b", "no such key: b");
    check("has(object.a.b) || has(object.spec.empty.x)", json!(false));
    check("object.?a.?b.hasValue()", json!(false));
    // One operand that decides makes up for another that fails, on either side.
    all_hold(&[
        "object.nothing == 1 || true",
        "true || object.nothing == 1",
        "[0, 1].exists(x, 1 / x == 1)",
    ]);
    check("object.nothing == 1 && false", json!(false));
    fails("object.nothing == 1 && true", "no such key: nothing");
}

#[test]
fn libraries() {
    all_hold(&[
        "quantity('1Gi').isGreaterThan(quantity('500Mi')) && isQuantity('1k') && !isQuantity('x')",
        "quantity('1').add(quantity('2')) == quantity('3')",
        "url('https://a.b:80/c?d=e').getHost() == 'a.b:80' && isURL('https://a.b') && !isURL('::')",
        "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && isIP('::1') && ip.isCanonical('::1')",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'abc'.matches('^a.c$')",
        "[1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [1, 2].isSorted() && ['a', 'b'].join('-') == 'a-b' && [1, 2].indexOf(2) == 1",
        "sets.contains([1, 2], [1]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 2], [2, 1])",
        "'%s is %d'.format(['a', 1]) == 'a is 1'",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('1.0.0')",
        "!format.dns1123Label().validate('abc').hasValue() && format.dns1123Label().validate('A').hasValue()",
        "'a,b'.split(',') == ['a', 'b'] && 'Abc'.lowerAscii() == 'abc' && 'abc'.substring(1) == 'bc' && 'abc'.charAt(1) == 'b' && ' a '.trim() == 'a'",
        "math.greatest(1, 2) == 2 && math.ceil(1.2) == 2.0 && base64.decode('aGk=') == b'hi'",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
        "size('é') == 1 && 'é'.size() == 1 && [1, 2, 3].reverse() == [3, 2, 1]",
        "lists.range(3) == [0, 1, 2]",
    ]);
}

#[test]
fn objects() {
    check(
        "Object{spec: Object.spec{replicas: object.spec.replicas + 1, labels: {'a': 'b'}}, ?gone: object.?gone}",
        json!({ "spec": { "replicas": 4, "labels": { "a": "b" } } }),
    );
    check("Object{spec: Object.spec{a: 1}}.spec.a", json!(1));
    check("[Object{a: 1}] == [Object{a: 1}]", json!(true));
    refused(
        "Object{nothing: 1}",
        "ERROR: <input>:1:15: undefined field 'nothing'\n | Object{nothing: 1}\n | ..............^",
    );
    refused(
        "Other{a: 1}",
        "ERROR: <input>:1:1: undeclared reference to 'Other' (in container '')\n | Other{a: 1}\n | ^",
    );
}

#[test]
fn what_does_not_compile() {
    refused(
        "spec.replicas > '1'",
        "ERROR: <input>:1:15: found no matching overload for '_>_' applied to '(int, string)'\n | spec.replicas > '1'\n | ..............^",
    );
    refused(
        "spec.foo == 1",
        "ERROR: <input>:1:5: undefined field 'foo'\n | spec.foo == 1\n | ....^",
    );
    refused(
        "foo",
        "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^",
    );
    refused(
        "object.a.frob()",
        "ERROR: <input>:1:14: undeclared reference to 'frob' (in container '')\n | object.a.frob()\n | .............^",
    );
    refused(
        "spec.name.startsWith(1)",
        "ERROR: <input>:1:21: found no matching overload for 'startsWith' applied to 'string.(int)'\n | spec.name.startsWith(1)\n | ....................^",
    );
    for text in [
        "",
        "1 +",
        "(1",
        "[1",
        "object.",
        "a b",
        "'x",
        "has(1)",
        "object.all(1, true)",
        "for",
        "1 = 2",
        "a &&",
        "{1: }",
    ] {
        assert!(environment().compile(text).is_err(), "{text}");
    }
}

#[test]
fn types_of_results() {
    for (text, wanted) in [
        ("1 < 2", "bool"),
        ("object.a", "dyn"),
        ("spec.tags.map(x, size(x))", "list(int)"),
        ("spec.labels.filter(k, true)", "list(string)"),
        ("true ? 1 : 2", "int"),
        ("[1, 'a']", "list(dyn)"),
        ("object.a ? [] : [1]", "list(int)"),
        ("object.a ? ['x'] : []", "list(string)"),
        ("[] + [1]", "list(int)"),
        ("[[], [1]]", "list(list(int))"),
        ("{'a': 1}", "map(string, int)"),
        ("spec.?name", "optional_type(string)"),
        ("spec.?name.orValue('')", "string"),
        ("Object{}", "Object"),
        ("object.a + 1", "int"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("timestamp('2024-01-01T00:00:00Z') - duration('1s')", "google.protobuf.Timestamp"),
    ] {
        assert_eq!(compile(text).result().to_string(), wanted, "{text}");
    }
}

#[test]
fn what_costs_too_much_ends() {
    let expensive = "operation cancelled: actual cost limit exceeded";
    let ten = "[1,2,3,4,5,6,7,8,9,10]";
    let nested = format!(
        "{ten}.all(a, {ten}.all(b, {ten}.all(c, {ten}.all(d, {ten}.all(e, {ten}.all(f, a+b+c+d+e+f > 0))))))"
    );
    fails(&nested, expensive);
    let mut doubled = "x == x".to_owned();
    for _ in 0..60 {
        doubled = format!("cel.bind(x, [x, x], {doubled})");
    }
    fails(&format!("cel.bind(x, [1], {doubled})"), expensive);
    let mut text = "x.size() > 0".to_owned();
    for _ in 0..60 {
        text = format!("cel.bind(x, x + x, {text})");
    }
    fails(&format!("cel.bind(x, 'abc', {text})"), expensive);
    fails("lists.range(1000000000).size() > 0", expensive);
    fails("'%.999999999f'.format([1.0])", expensive);
    // Expressions that take long to compile, again and again.
    fails("lists.range(1000).all(x, 'a'.matches('(a{1,' + string(x + 1) + '}){1,9}'))", expensive);
    for odd in [
        "quantity('1e999999999').sign() == 1",
        "quantity('1e-999999999').sign() == 1",
        "math.bitShiftLeft(1, 1000) == 0",
    ] {
        let started = std::time::Instant::now();
        let _ = evaluate(odd, &mut Meter::new(1_000_000));
        assert!(started.elapsed().as_secs() < 5, "{odd}");
    }
    // What several expressions share ends too.
    let mut meter = Meter::new(100);
    let program = compile("[1, 2, 3].all(x, x > 0)");
    let runs = (0..10).take_while(|_| program.evaluate(&variables(), &mut meter).is_ok()).count();
    assert!((1..9).contains(&runs), "{runs}");
    assert!(meter.is_spent());
}

#[test]
fn nesting_is_bounded() {
    for text in [
        format!("{}1{}", "(".repeat(5000), ")".repeat(5000)),
        format!("{}1{}", "[".repeat(5000), "]".repeat(5000)),
        format!("1{}", "+1".repeat(5000)),
        format!("object{}", ".a".repeat(5000)),
        format!("true{}", "?true:true".repeat(5000)),
        format!("{}1", "-(".repeat(5000)),
    ] {
        assert!(environment().compile(&text).is_err());
    }
    check(&format!("{}true", "!".repeat(5000)), json!(true));
    check(&format!("true{}", " && true".repeat(5000)), json!(true));
    check(&format!("{}1{}", "(".repeat(90), ")".repeat(90)), json!(1));
    check(&format!("1{}", " + 1".repeat(190)), json!(191));
    check(&format!("{}1{} != []", "[".repeat(90), "]".repeat(90)), json!(true));
    fails(&format!("object{}", ".a".repeat(190)), "no such key: a");
    check(&format!("{}true{}", "[1].all(x, ".repeat(80), ")".repeat(80)), json!(true));
}

/// Lists of lists of texts, a thousand each.
struct Thousands(usize);

impl crate::Extent for Thousands {
    fn size(&self) -> u64 {
        1000
    }

    fn field(&self, _: &str) -> Option<Arc<dyn crate::Extent>> {
        Some(Arc::new(Self(self.0)))
    }

    fn element(&self) -> Option<Arc<dyn crate::Extent>> {
        (self.0 > 0).then(|| Arc::new(Self(self.0 - 1)) as Arc<dyn crate::Extent>)
    }

    fn is_map(&self) -> bool {
        false
    }
}

#[test]
fn costs_grow_with_what_is_gone_through() {
    let estimate = |text: &str| {
        compile(text).estimate(&|name| {
            (name == "object").then(|| Arc::new(Thousands(2)) as Arc<dyn crate::Extent>)
        })
    };
    assert!(estimate("object.a == 'x'") < 10);
    assert!((1_000..10_000).contains(&estimate("object.all(x, true)")));
    assert!((1_000_000..10_000_000).contains(&estimate("object.all(x, x.all(y, y == 'abc'))")));
    assert!(estimate("object.all(x, object.all(y, object.all(z, true)))") > 1_000_000_000);
    assert!(estimate("object.a == object.b") > estimate("object.a == 'x'"));
}

proptest::proptest! {
    /// Whatever is written, and however it is put together, is an error or a value: nothing else happens.
    #[test]
    fn any_text_is_an_error_or_a_value(parts in proptest::collection::vec(0..WORDS.len(), 0..24), odd in ".{0,6}", at in 0_usize..24) {
        let mut words: Vec<&str> = parts.into_iter().map(|part| WORDS[part]).collect();
        words.insert(at.min(words.len()), &odd);
        for text in [words.join(" "), words.concat(), odd.clone()] {
            match environment().compile(&text) {
                Err(problems) => drop(problems.to_string()),
                Ok(program) => {
                    let mut meter = Meter::new(10_000);
                    if let Ok(value) = program.evaluate(&variables(), &mut meter) {
                        drop(to_json(&value, &mut meter));
                    }
                }
            }
        }
    }
}

/// What expressions are made of.
const WORDS: [&str; 48] = [
    "object",
    "spec",
    ".",
    "a",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "==",
    "<",
    "in",
    "1",
    "0",
    "9223372036854775807",
    "1.5",
    "2u",
    "'x'",
    "\"é\"",
    "b'x'",
    "true",
    "null",
    ".all(x, ",
    ".map(k, v, ",
    "has(",
    ".size()",
    "string(",
    "int(",
    "duration('1h')",
    "timestamp('2024-01-01T00:00:00Z')",
    "Object{a: ",
    "optional.of(",
    ".?a",
    "[?",
    ".matches('[')",
    "quantity('1')",
];
