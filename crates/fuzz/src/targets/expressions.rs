//! CEL: compiling any text, and evaluating what compiles.

use coracle_cel::{Environment, EvaluationError, Meter, Scope, Type, Value, from_json};
use serde_json::json;

struct Given(serde_json::Value);

impl Scope for Given {
    fn variable(&self, name: &str, _: &mut Meter) -> Option<Result<Value, EvaluationError>> {
        (name == "self").then(|| Ok(from_json(&self.0)))
    }
}

/// Whatever compiles ends within its costs.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let environment = Environment::default().with("self", Type::Dyn);
    let Ok(program) = environment.compile(text) else { return };
    let given = json!({ "a": 1, "b": "text", "c": [1, 2.5, null, "x"], "d": { "e": true, "f": -7 }, "t": "2026-01-01T00:00:00Z" });
    let _ = program.estimate(&|_| None);
    let _ = program.evaluate(&Given(given), &mut Meter::new(100_000));
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::texts(&[
        "self.a > 0 && self.b.startsWith('te') || !has(self.z)",
        "self.c.all(x, x != 3) ? self.d.map(k, k + '!') : ['a'].filter(y, y == \"a\")",
        "size(self.b) + int('12') - -3 % 2 * 4 / 1 == 0x1F",
        "timestamp(self.t) + duration('1h30m') < timestamp('2027-01-01T00:00:00Z')",
        "self.b.matches('^[a-z]+$') && self.b.find('t').size() == 1 && quantity('1Gi').isGreaterThan(quantity('1M'))",
        "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1') && url('https://a:1/b?c=d').getPort() == '1'",
        "{'k': [1, 2u, 3.0e-2], b'x\\xff': null}[?'k'].orValue([]) == dyn([r'raw\\', '''multi\nline'''])",
        "self.c.map(a, self.c.map(b, self.c.map(c, self.c.map(d, [a, b, c, d]))))",
        "semver('1.2.3').major() == 1 && format.dns1123Label().validate('a').hasValue() && [1,2].sum() == 3 && 'a,b'.split(',')[0] == 'a'",
    ])
}
