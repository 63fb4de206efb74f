//! What is wrong with an apply that would take away what others want.

use super::managed::{Manager, Operation};
use super::set::FieldSet;
use crate::status::{Cause, Details, Reason, Status, go_quote};

/// What one other manager wants otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who it is.
    pub manager: Manager,
    /// What it is about.
    pub fields: FieldSet,
}

/// All conflicts of one apply, sorted by manager.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    /// Without what is about the fields of a set.
    #[must_use]
    pub fn without(self, allowed: &FieldSet) -> Self {
        let left = self
            .0
            .into_iter()
            .map(|conflict| Conflict { fields: conflict.fields.difference(allowed), ..conflict });
        Self(left.filter(|conflict| !conflict.fields.is_empty()).collect())
    }

    /// The answer to the request: 409, with a cause for each field.
    pub fn status(&self) -> Status {
        let causes = self.0.iter().flat_map(|conflict| {
            conflict.fields.paths().into_iter().map(|field| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {}", show(&conflict.manager)),
                field,
            })
        });
        let details = Details { causes: causes.collect(), ..Details::default() };
        let mut status = Status::new(409, Reason::Conflict, self.message());
        status.details = Some(Box::new(details));
        status
    }

    fn message(&self) -> String {
        let paths: Vec<(&Conflict, Vec<String>)> =
            self.0.iter().map(|conflict| (conflict, conflict.fields.paths())).collect();
        let count: usize = paths.iter().map(|(_, paths)| paths.len()).sum();
        if let [(conflict, only)] = paths.as_slice()
            && let [path] = only.as_slice()
        {
            let manager = show(&conflict.manager);
            return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let mut lines = Vec::new();
        for (conflict, paths) in paths {
            lines.push(format!("conflicts with {}:", show(&conflict.manager)));
            lines.extend(paths.into_iter().map(|path| format!("- {path}")));
        }
        format!("Apply failed with {count} conflicts: {}", lines.join("\n"))
    }
}

/// A manager as messages name it.
fn show(manager: &Manager) -> String {
    let name = go_quote(&manager.name);
    let subresource = match manager.subresource.as_str() {
        "" => String::new(),
        subresource => format!(" with subresource {}", go_quote(subresource)),
    };
    match manager.operation {
        Operation::Apply => format!("{name}{subresource}"),
        Operation::Update => format!("{name}{subresource} using {}", manager.api_version),
    }
}
