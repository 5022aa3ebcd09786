//! What a plain scalar of YAML stands for.

use serde_json::Value;

use super::whole;

/// A scalar by its text and the core type of its tag, if it has one.
pub(super) fn tagged(tag: &str, text: &str) -> Result<Value, String> {
    let value = match tag {
        "str" => return Ok(text.into()),
        _ => plain(text)?,
    };
    let fits = match tag {
        "null" => value.is_null(),
        "bool" => value.is_boolean(),
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        _ => true,
    };
    if fits { Ok(value) } else { Err(format!("{text:.40?} is not of the type !!{tag}")) }
}

/// A scalar without quotes and tag.
pub(super) fn plain(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            true.into()
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            false.into()
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => {
            return Err(format!("{text} is not a number that JSON has"));
        }
        text => number(text).unwrap_or_else(|| text.into()),
    })
}

/// Integers of Go's syntax, with underscores anywhere; decimal fractions with an exponent.
fn number(text: &str) -> Option<Value> {
    match text.as_bytes().first()? {
        b'.' => decimal(text),
        b'+' | b'-' | b'0'..=b'9' => {
            let text = text.replace('_', "");
            integer(&text).or_else(|| decimal(&text))
        }
        _ => None,
    }
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    // Of what no field can have the size has to be right, not the last digits.
    let size = || {
        let digits = digits.chars().filter_map(|digit| digit.to_digit(radix));
        digits.fold(0.0, |size, digit| size * f64::from(radix) + f64::from(digit))
    };
    let Ok(magnitude) = u64::from_str_radix(digits, radix) else {
        return whole(if negative { -size() } else { size() });
    };
    if !negative {
        return Some(magnitude.into());
    }
    match 0_i64.checked_sub_unsigned(magnitude) {
        Some(number) => Some(number.into()),
        None => whole(-size()),
    }
}

fn decimal(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Rust also reads `inf` and `nan`, which are words here.
    let written = unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit());
    let number = text.parse::<f64>().ok().filter(|_| written)?;
    whole(number)
}
