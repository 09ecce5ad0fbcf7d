//! Numbers and bytes as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A number with so many significant digits, without trailing zeros: `0.123`, `1240`, `3.1e-7`, `1.2e9`; `NaN`, `inf`
/// and `-inf` as such. Below 1e-4 and from 1e7 on it is in scientific form.
pub fn number(value: f64, digits: usize) -> String {
    let digits = digits.clamp(1, 17);
    if !value.is_finite() {
        return value.to_string();
    }
    if value == 0.0 {
        return "0".into();
    }
    // The exponent after rounding: 9.9996 has 4 digits, as 10.00.
    let rounded = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..7).contains(&exponent) {
        return format!("{}e{exponent}", trimmed(mantissa));
    }
    let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
    trimmed(&format!("{value:.decimals$}")).to_owned()
}

/// Bytes as an address that holds them: `data:image/png;base64,...`, for pictures of a page.
pub fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

/// A decimal number without zeros at its end.
pub(crate) fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A place in a drawing: two decimals are finer than any screen.
pub(crate) fn place(value: f64) -> String {
    let text = format!("{value:.2}");
    match trimmed(&text) {
        "-0" => "0".into(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_rounded() {
        for (value, digits, text) in [
            (0.0, 3, "0"),
            (-0.0, 3, "0"),
            (1.0, 3, "1"),
            (0.12345, 3, "0.123"),
            (9.9996, 4, "10"),
            (1234.5, 3, "1234"),
            (-1234.56, 6, "-1234.56"),
            (1e7, 3, "1e7"),
            (9_999_999.0, 3, "1e7"),
            (3.14e-7, 2, "3.1e-7"),
            (1e-4, 3, "0.0001"),
            (f64::NAN, 3, "NaN"),
            (f64::NEG_INFINITY, 3, "-inf"),
            (1e300, 3, "1e300"),
        ] {
            assert_eq!(number(value, digits), text, "{value} {digits}");
        }
    }

    #[test]
    fn places_have_no_needless_digits() {
        for (value, text) in [(1.0, "1"), (1.256, "1.26"), (-0.001, "0"), (100.5, "100.5")] {
            assert_eq!(place(value), text);
        }
    }

    #[test]
    fn bytes_are_in_base64() {
        assert_eq!(data_uri("image/png", b"Man"), "data:image/png;base64,TWFu");
        assert_eq!(data_uri("text/plain", b"M"), "data:text/plain;base64,TQ==");
    }
}
