//! Numbers in few characters.

/// `950`, `12.3k`, `4.5M`.
pub(crate) fn count(number: f64) -> String {
    scaled(number, 1_000.0, &["", "k", "M", "G", "T"])
}

/// `950`, `12.3K`, `512M`, of 1024 each.
pub(crate) fn bytes(number: f64) -> String {
    scaled(number, 1_024.0, &["B", "K", "M", "G", "T"])
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut scaled = number;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while scaled.abs() >= step.min(999.5) {
        let Some(next) = units.next() else { break };
        (scaled, unit) = (scaled / step, next);
    }
    let whole = scaled.abs() >= 99.95 || unit.is_empty() || unit == "B";
    if whole { format!("{scaled:.0}{unit}") } else { format!("{scaled:.1}{unit}") }
}

/// Per second: `0.25`, `3.4`, `120`, `12.3k`.
pub(crate) fn rate(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.095 => format!("{number:.2}"),
        small if small < 99.95 => format!("{number:.1}"),
        _ => count(number),
    }
}

/// A wait in seconds: `850us`, `12ms`, `1.5s`.
pub(crate) fn seconds(wait: f64) -> String {
    match wait {
        wait if wait < 0.000_999_5 => format!("{:.0}us", wait * 1e6),
        wait if wait < 0.009_995 => format!("{:.1}ms", wait * 1e3),
        wait if wait < 0.999_5 => format!("{:.0}ms", wait * 1e3),
        wait if wait < 99.95 => format!("{wait:.1}s"),
        wait => duration(wait),
    }
}

/// A span in seconds, in two units: `42s`, `3m12s`, `5h03m`, `12d4h`.
pub(crate) fn duration(span: f64) -> String {
    // A span that is no number, or negative, is none.
    let span = span.clamp(0.0, 1e12) as u64;
    match (span / 86_400, span / 3_600 % 24, span / 60 % 60, span % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, h, _, _) => format!("{d}d{h}h"),
    }
}

/// Of a whole: `7%`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [(0.0, "0"), (950.0, "950"), (999.6, "1.0k"), (12_345.0, "12.3k"), (4.5e6, "4.5M")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [(0.0, "0B"), (12.0 * 1024.0, "12.0K"), (536_870_912.0, "512M"), (1e30, "909494701773M")]
        {
            if number < 1e20 {
                assert_eq!(bytes(number), text);
            } else {
                assert!(bytes(number).ends_with('T'));
            }
        }
        for (number, text) in [(0.0, "0"), (0.01, "0.01"), (3.42, "3.4"), (99.9, "99.9"), (120.4, "120")] {
            assert_eq!(rate(number), text);
        }
        for (wait, text) in [(0.00085, "850us"), (0.0034, "3.4ms"), (0.012, "12ms"), (1.5, "1.5s"), (600.0, "10m00s")] {
            assert_eq!(seconds(wait), text);
        }
        for (span, text) in [(42.0, "42s"), (192.0, "3m12s"), (18_180.0, "5h03m"), (1_051_200.0, "12d4h")] {
            assert_eq!(duration(span), text);
        }
        assert_eq!((duration(f64::NAN), duration(-5.0), percent(0.066)), ("0s".into(), "0s".into(), "7%".into()));
    }
}
