//! `matchConditions`: which of the writes that the rules mean a webhook or a policy really wants.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use coracle_cel::{Environment, EvaluationError, Meter, Program, Scope, Type, Value};
use serde_json::Value as Json;

use super::{CONDITIONS_BUDGET, environment};

/// How many conditions there may be; upstream's bound.
const MOST: usize = 64;

/// Compiled conditions.
#[derive(Debug, Default)]
pub(crate) struct MatchConditions(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    expression: String,
    program: Result<Program, String>,
}

/// Whether a write is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// All conditions hold.
    Matches,
    /// One does not.
    Differs,
    /// None says no, but some could not be evaluated: the failure policy decides. The message is for the client.
    Failed(String),
}

impl MatchConditions {
    /// Reads and compiles `matchConditions`. `has_params` for policies with a `paramKind`.
    pub(crate) fn read(conditions: &Json, has_params: bool) -> Self {
        let all = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() {
            return Self::default();
        }
        let environment = environment(has_params);
        let condition = |condition: &Json| {
            let expression = condition["expression"].as_str().unwrap_or_default().to_owned();
            Condition { program: compile(&environment, &expression, &[Type::Bool]), expression }
        };
        Self(all.iter().map(condition).collect())
    }

    /// Whether there are none, so that every write is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks each condition.
    pub(crate) fn judge(&self, scope: &dyn Scope) -> Judgement {
        let mut meter = Meter::new(CONDITIONS_BUDGET);
        let mut failed = Vec::new();
        for Condition { expression, program } in &self.0 {
            let value = match program {
                Ok(program) => program.evaluate(scope, &mut meter),
                Err(problem) => Err(EvaluationError::Failed(problem.clone().into())),
            };
            match value {
                Ok(Value::Bool(true)) => (),
                Ok(_) => return Judgement::Differs,
                Err(error) => failed.push(failure(expression, &error)),
            }
        }
        match failed.len() {
            0 => Judgement::Matches,
            1 => Judgement::Failed(failed.remove(0)),
            _ => Judgement::Failed(format!("[{}]", failed.join(", "))),
        }
    }

    /// Checks `matchConditions` at `path` before they are stored.
    pub(crate) fn validate(
        conditions: &Json,
        has_params: bool,
        path: &Path,
        errors: &mut FieldErrors,
    ) {
        let all = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
        if all.len() > MOST {
            errors.too_many(path, all.len(), MOST);
        }
        if all.is_empty() {
            return;
        }
        let environment = environment(has_params);
        let mut names: Vec<&str> = Vec::new();
        for (index, condition) in all.iter().enumerate() {
            let at = path.index(index);
            let expression = condition["expression"].as_str().unwrap_or_default().trim();
            if expression.is_empty() {
                errors.required(at.child("expression"), "");
            } else if let Err(problem) = compile(&environment, expression, &[Type::Bool]) {
                errors.invalid(at.child("expression"), expression, problem);
            }
            let name = condition["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                errors.required(at.child("name"), "");
            } else if names.contains(&name) {
                errors.duplicate(at.child("name"), name);
            } else {
                errors.invalid_each(at.child("name"), name, names::qualified_name(name));
            }
            names.push(name);
        }
    }
}

/// Why an expression has no value, in upstream's words.
pub(crate) fn failure(expression: &str, error: &EvaluationError) -> String {
    match error {
        EvaluationError::TooExpensive => {
            "validation failed due to running out of cost budget, no further validation rules will be run"
                .to_owned()
        }
        EvaluationError::Failed(why) => {
            format!("expression '{}' resulted in error: {why}", expression.trim())
        }
    }
}

/// Compiles an expression whose value has to be of one of these types; what is wrong with it in upstream's words.
pub(crate) fn compile(
    environment: &Environment,
    expression: &str,
    wanted: &[Type],
) -> Result<Program, String> {
    let program = environment
        .compile(expression)
        .map_err(|problems| format!("compilation failed: {problems}"))?;
    let result = program.result();
    if wanted.is_empty() || *result == Type::Dyn || wanted.contains(result) {
        return Ok(program);
    }
    match wanted {
        [one] => Err(format!("must evaluate to {one}")),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(format!("must evaluate to one of [{}]", names.join(" ")))
        }
    }
}
