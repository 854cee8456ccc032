//! Failures as one sentence for a person.

use std::error::Error;

/// The error and its causes on one line. A cause that is in the text before it already is not said again.
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut sentence = line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = line(&error.to_string());
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}

fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the file cannot be read ({source}): correct the path")]
    struct Outer {
        source: std::io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("no configuration\n")]
    struct Outermost(#[from] Outer);

    #[test]
    fn each_cause_is_said_once_on_one_line() {
        let outer = Outer { source: std::io::Error::other("disk on fire") };
        let sentence = of(&Outermost(outer));
        assert_eq!(sentence, "no configuration: the file cannot be read (disk on fire): correct the path");
    }
}
