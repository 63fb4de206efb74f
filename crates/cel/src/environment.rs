//! Compiling: which variables and types there are, and what an expression has to be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ast::{Expr, Kind};
use crate::budget::Meter;
use crate::check::{Known, Types, check};
use crate::cost::{Extent, estimate};
use crate::evaluate::evaluate;
use crate::parse::parse;
use crate::problem::{EvaluationError, Problems};
use crate::types::{ObjectType, Type};
use crate::value::Value;

/// What expressions of one sort may use.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Type>,
    types: Option<Arc<Types>>,
}

impl Environment {
    /// With a variable of this type.
    #[must_use]
    pub fn with(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.to_owned(), of);
        self
    }

    /// With types of which expressions can make objects, by their names.
    #[must_use]
    pub fn with_types(
        mut self,
        types: impl Fn(&str) -> Option<Arc<dyn ObjectType>> + Send + Sync + 'static,
    ) -> Self {
        self.types = Some(Arc::new(types));
        self
    }

    /// Compiles a text.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn compile(&self, text: &str) -> Result<Program, Problems> {
        let expr = parse(text)?;
        let known = Known { variables: &self.variables, types: self.types.as_deref() };
        let mut problems = Vec::new();
        let result = check(&expr, &known, &mut problems);
        if problems.is_empty() {
            Ok(Program { expr, result })
        } else {
            Err(Problems::new(text, problems))
        }
    }
}

/// Where an evaluation finds its variables.
pub trait Scope {
    /// The value of a variable, or of a field of one (`variables.name`), which is asked for first, so that it can be made when it
    /// is needed. None if there is nothing of this name.
    fn variable(&self, name: &str, meter: &mut Meter) -> Option<Result<Value, EvaluationError>>;
}

/// A compiled expression.
pub struct Program {
    expr: Expr,
    result: Type,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Program").field("result", &self.result).finish_non_exhaustive()
    }
}

impl Program {
    /// The type of its value.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Whether it uses a variable of this name.
    pub fn mentions(&self, variable: &str) -> bool {
        let mut names = BTreeSet::new();
        names_in(&self.expr, &mut names);
        names.contains(variable)
    }

    /// The value on these variables, paid for out of the meter.
    ///
    /// # Errors
    /// When it has none, or costs too much.
    pub fn evaluate(&self, scope: &dyn Scope, meter: &mut Meter) -> Result<Value, EvaluationError> {
        let around = meter.begin();
        let value = evaluate(&self.expr, scope, meter);
        meter.end(around);
        value
    }

    /// What an evaluation costs at most, if the variables are as large as this.
    pub fn estimate(&self, of: &dyn Fn(&str) -> Option<Arc<dyn Extent>>) -> u64 {
        estimate(&self.expr, of)
    }
}

fn names_in<'a>(expr: &'a Expr, names: &mut BTreeSet<&'a str>) {
    if let Kind::Name(name) = &expr.kind {
        names.insert(name);
    }
    expr.each_child(&mut |child| names_in(child, names));
}
