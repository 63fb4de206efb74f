//! Quantities where rules compare them: `1`, `500m`, `2Gi`, `1e3`.

use serde_json::Value;

/// Whether both quantities are the same amount; a badly written one equals only itself.
pub fn equal(one: &Value, other: &Value) -> bool {
    one == other || (nano(one).is_some() && nano(one) == nano(other))
}

/// Whether the quantity is there and above zero.
pub fn is_positive(quantity: &Value) -> bool {
    nano(quantity).is_some_and(|amount| amount > 0)
}

/// The amount in billionths, rounded up as upstream rounds; `None` if absent or badly written.
pub fn nano(quantity: &Value) -> Option<i128> {
    match quantity {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let end = text.find(|character: char| !matches!(character, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale: i128 = 1_000_000_000;
    let (multiplier, divisor) = match suffix {
        "n" => (1, 1),
        "u" => (1_000, 1),
        "m" => (1_000_000, 1),
        "" => (scale, 1),
        "k" => (scale * 1_000, 1),
        "M" => (scale * 1_000_000, 1),
        "G" => (scale * 1_000_000_000, 1),
        "T" => (scale * 1_000_000_000_000, 1),
        "P" => (scale * 1_000_000_000_000_000, 1),
        "E" => (scale * 1_000_000_000_000_000_000, 1),
        "Ki" => (scale << 10, 1),
        "Mi" => (scale << 20, 1),
        "Gi" => (scale << 30, 1),
        "Ti" => (scale << 40, 1),
        "Pi" => (scale << 50, 1),
        "Ei" => (scale << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => (scale * 10_i128.pow(exponent.unsigned_abs()), 1),
                -18..0 => (scale, 10_i128.pow(exponent.unsigned_abs())),
                _ => return None,
            }
        }
    };
    let negative = number.starts_with('-');
    let digits = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = divisor * 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let amount = mantissa.checked_mul(multiplier)?;
    let rounded = amount / divisor + i128::from(amount % divisor != 0);
    Some(if negative { -rounded } else { rounded })
}
