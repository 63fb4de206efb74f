//! What an evaluation may cost.

use crate::problem::EvaluationError;
use crate::value::Value;

/// What one expression may cost at most; upstream's bound. A unit is about one step of the evaluation.
const PER_EXPRESSION: u64 = 1_000_000;

/// Every ten bytes or elements that are gone through cost as much as one step.
const PER_STEP: usize = 10;

/// Counts what evaluations cost, and ends those that cost too much.
#[derive(Debug)]
pub struct Meter {
    total: u64,
    expression: u64,
}

impl Meter {
    /// For several expressions that may together cost this much.
    pub fn new(total: u64) -> Self {
        Self { total, expression: PER_EXPRESSION.min(total) }
    }

    /// Whether nothing is left for any further expression.
    pub fn is_spent(&self) -> bool {
        self.total == 0
    }

    /// Begins an expression, and gives what was left for the one around it.
    pub(crate) fn begin(&mut self) -> u64 {
        std::mem::replace(&mut self.expression, PER_EXPRESSION.min(self.total))
    }

    /// Ends an expression.
    pub(crate) fn end(&mut self, around: u64) {
        self.expression = around.min(self.total);
    }

    /// Pays for something.
    pub(crate) fn pay(&mut self, cost: u64) -> Result<(), EvaluationError> {
        if cost > self.expression {
            self.total -= self.expression.min(self.total);
            self.expression = 0;
            return Err(EvaluationError::TooExpensive);
        }
        self.expression -= cost;
        self.total = self.total.saturating_sub(cost);
        Ok(())
    }

    /// Pays for going through so many bytes or elements.
    pub(crate) fn pay_for(&mut self, size: usize) -> Result<(), EvaluationError> {
        self.pay(u64::try_from(size.div_ceil(PER_STEP)).unwrap_or(u64::MAX))
    }

    /// Pays for going through all of a value, however deep.
    pub(crate) fn pay_for_all(&mut self, value: &Value) -> Result<(), EvaluationError> {
        match value {
            Value::String(text) => self.pay_for(text.len()),
            Value::Bytes(bytes) => self.pay_for(bytes.len()),
            Value::List(items) => {
                self.pay_for(items.len())?;
                items.iter().try_for_each(|item| self.pay_for_all(item))
            }
            Value::Map(map) => {
                self.pay_for(map.map.len())?;
                map.map.values().try_for_each(|value| self.pay_for_all(value))
            }
            _ => Ok(()),
        }
    }
}
