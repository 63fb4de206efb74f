//! The columns that `kubectl get` shows, for each kind.
//!
//! Start reading at [`for_kind`]. Names, types and cells are upstream's (`pkg/printers/internalversion/printers.go`).

use coracle_api::kinds::Kind;
use jiff::Timestamp;
use serde_json::Value;

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The column's name in mixed case; kubectl prints it in capitals.
    pub name: &'static str,
    /// An OpenAPI type: `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// An OpenAPI format: `name` for the object's name, or empty.
    pub format: &'static str,
    /// What the column tells.
    pub description: &'static str,
    /// 0: always shown; 1: shown with `-o wide`.
    pub priority: i32,
}

/// The table of one kind.
pub struct Columns {
    /// What the columns are.
    pub definitions: &'static [Column],
    /// One row: as many cells as definitions. Ages are counted to the given moment.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// The table of a kind; kinds without their own show their name and the time of creation.
pub fn for_kind(kind: &Kind) -> &'static Columns {
    match (kind.group, kind.kind) {
        _ => &GENERIC,
    }
}

static GENERIC: Columns = Columns {
    definitions: &[
        Column { name: "Name", kind: "string", format: "name", description: "Name must be unique within a namespace.", priority: 0 },
        Column { name: "Created At", kind: "date", format: "", description: "The time at which the object was created.", priority: 0 },
    ],
    cells: |object, _| {
        let metadata = &object["metadata"];
        vec![metadata["name"].clone(), metadata["creationTimestamp"].clone()]
    },
};
