//! `RuntimeClass`.

use coracle_api::names;
use coracle_api::status::Path;

use crate::rules::Rules;
use crate::rules::checks::{immutable, labels, quantity_not_negative};
use crate::rules::json::Read;
use crate::rules::pod::scheduling::tolerations;

pub static RULES: Rules = Rules {
    validate: |class, errors| {
        let handler = class["handler"].text();
        errors.invalid_each("handler", handler, names::dns_label(handler));
        let fixed = Path::new("overhead").child("podFixed");
        for (name, quantity) in class["overhead"]["podFixed"].entries() {
            quantity_not_negative(quantity, &fixed.key(name), errors);
        }
        let path = Path::new("scheduling");
        labels(&class["scheduling"]["nodeSelector"], &path.child("nodeSelector"), errors);
        tolerations(&class["scheduling"]["tolerations"], &path.child("tolerations"), errors);
    },
    validate_update: |new, old, errors| {
        immutable(&new["handler"], &old["handler"], "handler", errors)
    },
    ..Rules::GENERIC
};
