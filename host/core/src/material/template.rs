//! Fills in the templates that values of Secrets may be: `{{ name }}` and nothing else of Go's templates.
//!
//! What is wrong with a value is said without quoting it.

/// Bound of a filled-in value, as upstream has it for files.
const FILLED_BYTES_MAX: usize = 1024 * 1024;

/// Why a value could not be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not UTF-8.
    #[error("it is not text")]
    NotText,
    /// `{{` without `}}`.
    #[error("an action has no end")]
    Unclosed,
    /// Something between the braces that is not known.
    #[error("it has an action that is not known")]
    UnknownAction,
    /// More than is allowed.
    #[error("it is larger than {FILLED_BYTES_MAX} bytes when it is filled in")]
    TooLarge,
}

/// The value with each `{{ <first> }}` replaced by the second text. Go's comments and trimming dashes work.
///
/// # Errors
/// The first thing that is wrong.
pub fn fill_in(value: &[u8], actions: &[(String, String)]) -> Result<Vec<u8>, TemplateError> {
    let mut rest = std::str::from_utf8(value).map_err(|_| TemplateError::NotText)?;
    let mut filled = String::new();
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, behind) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        let (action, trims_before) = match action.strip_prefix("- ") {
            Some(action) => (action, true),
            None => (action, false),
        };
        let (action, trims_behind) = match action.strip_suffix(" -") {
            Some(action) => (action, true),
            None => (action, false),
        };
        let action = action.trim();
        filled.push_str(if trims_before {
            before.trim_end()
        } else {
            before
        });
        let is_comment = action.starts_with("/*") && action.ends_with("*/");
        match actions.iter().find(|(name, _)| name == action) {
            Some((_, text)) => filled.push_str(text),
            None if is_comment => {}
            None => return Err(TemplateError::UnknownAction),
        }
        if filled.len() > FILLED_BYTES_MAX {
            return Err(TemplateError::TooLarge);
        }
        rest = if trims_behind {
            behind.trim_start()
        } else {
            behind
        };
    }
    filled.push_str(rest);
    if filled.len() > FILLED_BYTES_MAX {
        return Err(TemplateError::TooLarge);
    }
    Ok(filled.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(value: &str) -> Result<String, TemplateError> {
        let actions = [(".controlPlane.version".to_owned(), "v1.36.3".to_owned())];
        fill_in(value.as_bytes(), &actions).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn actions_become_their_text() {
        assert_eq!(filled("a {{.controlPlane.version}}").unwrap(), "a v1.36.3");
        assert_eq!(
            filled("a \n{{- .controlPlane.version -}}\n b {{/* c */}}").unwrap(),
            "av1.36.3b "
        );
        assert_eq!(filled("none } }").unwrap(), "none } }");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(filled("{{ .other }}"), Err(TemplateError::UnknownAction));
        assert_eq!(filled("{{ .controlPlane"), Err(TemplateError::Unclosed));
        assert_eq!(fill_in(&[0xff], &[]), Err(TemplateError::NotText));
        let huge = "x".repeat(FILLED_BYTES_MAX + 1);
        assert_eq!(filled(&huge), Err(TemplateError::TooLarge));
    }
}
