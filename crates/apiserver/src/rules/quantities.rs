//! Quantities where rules compare them.

use coracle_api::quantity::Quantity;
use serde_json::Value;

/// The amount; `None` if absent or badly written.
pub fn quantity(value: &Value) -> Option<Quantity> {
    Quantity::from_value(value).ok()
}

/// Whether both quantities are the same amount; a badly written one equals only itself.
pub fn equal(one: &Value, other: &Value) -> bool {
    one == other || (quantity(one).is_some() && quantity(one) == quantity(other))
}

/// Whether the quantity is there and above zero.
pub fn is_positive(value: &Value) -> bool {
    quantity(value).is_some_and(|amount| amount > Quantity::ZERO)
}
