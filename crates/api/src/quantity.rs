//! Quantities: `100m`, `1.5Gi`, `2e3`; parsed exactly, printed in upstream's canonical form.
//!
//! A quantity is a whole number of billionths, as upstream keeps at most nine decimals and no magnitude beyond
//! `2^63 - 1`: finer ones are rounded away from zero, larger ones capped.

use std::cmp::Ordering;
use std::fmt::Display;
use std::iter::Sum;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use serde_json::Value;

const NANOS_PER_UNIT: i128 = 1_000_000_000;
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS_PER_UNIT;
/// More digits than this cannot change a value that is capped at 2^63-1 and rounded to 10^-9, but would overflow.
const MAX_DIGITS: usize = 36;

/// An exact amount with the notation in which it is printed.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// How a quantity is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Powers of ten with a letter: `k`, `M`, `m`.
    DecimalSi,
    /// Powers of 1024: `Ki`, `Mi`.
    BinarySi,
    /// Powers of ten in digits: `1e3`.
    DecimalExponent,
}

/// Why text is no quantity; the messages are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is not a number and a suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// Nobody knows the suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing, in decimal notation.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANOS_PER_UNIT, format }
    }

    /// A whole number of thousandths, as CPU is counted.
    pub const fn from_milli(milli: i64) -> Self {
        Self { nanos: milli as i128 * 1_000_000, format: Format::DecimalSi }
    }

    /// Reads a quantity of JSON: a string, or a number.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    /// The notation.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whole units, rounded away from zero as upstream's `Value()` does.
    pub fn value(&self) -> i64 {
        self.scaled(NANOS_PER_UNIT)
    }

    /// Thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        self.scaled(1_000_000)
    }

    /// As a float, for scores and metrics only.
    #[expect(clippy::cast_precision_loss, reason = "an approximation is what the caller asks for")]
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS_PER_UNIT as f64
    }

    /// Whether it is nothing.
    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub const fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub const fn is_integer(&self) -> bool {
        self.nanos % NANOS_PER_UNIT == 0
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = divide_away_from_zero(self.nanos, unit);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// Zero takes the other's notation, as upstream's `Add` does.
    fn combined(self, other: Self, nanos: i128) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: nanos.clamp(-MAX_NANOS, MAX_NANOS), format }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let end = unsigned.find(|character: char| !character.is_ascii_digit() && character != '.');
        let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (scale, format) = read_suffix(suffix)?;
        let nanos = match scale {
            Scale::Ten(exponent) => decimal_nanos(whole, fraction, exponent),
            Scale::Two(shift) => binary_nanos(whole, fraction, shift),
        };
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

enum Scale {
    Ten(i32),
    Two(u32),
}

fn read_suffix(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    let decimal = |exponent| Ok((Scale::Ten(exponent), Format::DecimalSi));
    let binary = |shift| Ok((Scale::Two(shift), Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => match suffix.strip_prefix(['e', 'E']) {
            Some(digits) => {
                let exponent = digits.parse::<i32>().map_err(|_| wrong_suffix(suffix))?;
                Ok((Scale::Ten(exponent), Format::DecimalExponent))
            }
            None => Err(wrong_suffix(suffix)),
        },
    }
}

/// Upstream tells text that cannot be a suffix from a suffix that nobody knows.
fn wrong_suffix(suffix: &str) -> QuantityError {
    let letters = suffix.trim_start_matches(|character| "eEinumkKMGTP".contains(character));
    let digits = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        QuantityError::Suffix
    } else {
        QuantityError::Format
    }
}

/// `whole.fraction * 10^exponent` in billionths, rounded up and capped.
fn decimal_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let digits: String = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    // The value in billionths is digits * 10^shift.
    let fraction_digits = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let shift = i64::from(exponent) + 9 - fraction_digits;
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let magnitude = length.saturating_add(shift);
    if magnitude > 28 {
        return MAX_NANOS;
    }
    if magnitude <= 0 {
        // Less than one billionth, yet something: upstream rounds it up.
        return 1;
    }
    let kept = usize::try_from(magnitude).unwrap_or(MAX_DIGITS);
    let (integer, rest) = digits.split_at(kept.min(digits.len()));
    let zeros = u32::try_from(kept - integer.len()).unwrap_or(0);
    let value = integer.parse::<i128>().unwrap_or(MAX_NANOS) * 10_i128.pow(zeros);
    let rounded = if rest.bytes().any(|digit| digit != b'0') { value + 1 } else { value };
    rounded.min(MAX_NANOS)
}

/// `whole.fraction * 2^shift` in billionths, rounded up and capped.
fn binary_nanos(whole: &str, fraction: &str, shift: u32) -> i128 {
    let whole = whole.trim_start_matches('0');
    if whole.len() > 19 {
        return MAX_NANOS;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(MAX_NANOS) };
    // 2^60 units are 10^27 billionths: 18 decimals fit beside them, and more cannot matter after rounding.
    let (kept, rest) = fraction.split_at(fraction.len().min(18));
    let mut numerator: i128 = if kept.is_empty() { 0 } else { kept.parse().unwrap_or(0) };
    let denominator = 10_i128.pow(u32::try_from(kept.len()).unwrap_or(0));
    let unit = 1_i128 << shift;
    if rest.bytes().any(|digit| digit != b'0') && denominator > 1 {
        numerator += 1;
    }
    let Some(whole) = whole.checked_mul(unit).and_then(|units| units.checked_mul(NANOS_PER_UNIT))
    else {
        return MAX_NANOS;
    };
    // numerator < 10^18 and unit <= 2^60, so the first product fits; the second is split to stay within 127 bits.
    let product = numerator * unit;
    let units = product / denominator;
    let left = product % denominator;
    let nanos = units * NANOS_PER_UNIT + divide_away_from_zero(left * NANOS_PER_UNIT, denominator);
    (whole + nanos).min(MAX_NANOS)
}

fn divide_away_from_zero(value: i128, unit: i128) -> i128 {
    let quotient = value / unit;
    if value % unit == 0 { quotient } else { quotient + value.signum() }
}

impl Display for Quantity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        // Fractions of a small binary quantity cannot be written with binary suffixes.
        let binary = self.format == Format::BinarySi
            && self.nanos % NANOS_PER_UNIT == 0
            && self.nanos.abs() >= 1024 * NANOS_PER_UNIT;
        if binary {
            return write_binary(out, self.nanos / NANOS_PER_UNIT);
        }
        let (mut mantissa, mut thousands) = (self.nanos, -3_i32);
        while mantissa % 1000 == 0 && thousands < 6 {
            mantissa /= 1000;
            thousands += 1;
        }
        if self.format == Format::DecimalExponent {
            return match thousands {
                0 => write!(out, "{mantissa}"),
                _ => write!(out, "{mantissa}e{}", thousands * 3),
            };
        }
        let suffix = match thousands {
            -3 => "n",
            -2 => "u",
            -1 => "m",
            0 => "",
            1 => "k",
            2 => "M",
            3 => "G",
            4 => "T",
            5 => "P",
            _ => "E",
        };
        write!(out, "{mantissa}{suffix}")
    }
}

fn write_binary(out: &mut std::fmt::Formatter<'_>, mut units: i128) -> std::fmt::Result {
    let mut suffix = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if units % 1024 != 0 {
            break;
        }
        units /= 1024;
        suffix = next;
    }
    write!(out, "{units}{suffix}")
}

/// Equal amounts are equal, however they are printed.
impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.combined(other, self.nanos + other.nanos)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.combined(other, self.nanos - other.nanos)
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests;
