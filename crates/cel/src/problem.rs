//! What can be wrong with a text, and with an evaluation.

use std::borrow::Cow;
use std::fmt;

/// One thing that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes.
    pub at: usize,
    /// What.
    pub message: String,
}

/// All that is wrong with a text. Printed as cel-go does: line, column, and the line with an arrow below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    text: String,
    /// Each problem, in the order of the text.
    pub found: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(text: &str, mut found: Vec<Problem>) -> Self {
        found.sort_by_key(|problem| problem.at);
        Self { text: text.to_owned(), found }
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.found.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            let at = problem.at.min(self.text.len());
            let before = self.text.get(..at).unwrap_or_default();
            let line_number = before.matches('\n').count();
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
            write!(out, "ERROR: <input>:{}:{}: {}", line_number + 1, column + 1, problem.message)?;
            if let Some(line) = self.text.split('\n').nth(line_number) {
                let line = line.replace('\t', " ");
                write!(out, "\n | {line}\n | {}^", ".".repeat(column))?;
            }
        }
        Ok(())
    }
}

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The expression does not work out on these values.
    #[error("{0}")]
    Failed(Cow<'static, str>),
    /// It cost too much.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooExpensive,
}

impl EvaluationError {
    pub(crate) fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed(text.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::text("no such overload")
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::Failed(format!("no such key: {key}").into())
    }
}
