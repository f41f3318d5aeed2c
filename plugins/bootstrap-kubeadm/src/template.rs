//! Fills in the templates of files: `contentFormat: Template` knows one action.

use crate::refusal::Refusal;

/// The action that a file's template may have: the control plane's version, with a leading v.
pub(crate) const CONTROL_PLANE_VERSION: &str = ".controlPlane.version";
/// Bound of a file's content after its template has been filled in (contract 3.9).
const RENDERED_BYTES_MAX: usize = 1024 * 1024;

/// Fills in `{{ .controlPlane.version }}`. The host does the same for content that comes from a Secret.
pub(crate) fn fill_in(
    template: &str,
    control_plane_version: &str,
    position: usize,
) -> Result<String, Refusal> {
    let broken = |what: &str| {
        Refusal::object(
            "TemplateInvalid",
            format!(
                "files[{position}].content: {what}: a template may only have {{{{ {CONTROL_PLANE_VERSION} }}}}"
            ),
        )
    };
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, behind) = after
            .split_once("}}")
            .ok_or_else(|| broken("an action has no end"))?;
        let trims_before = action.starts_with("- ");
        let trims_behind = action.ends_with(" -");
        let inner = action
            .strip_prefix('-')
            .filter(|_| trims_before)
            .unwrap_or(action);
        let inner = inner
            .strip_suffix('-')
            .filter(|_| trims_behind)
            .unwrap_or(inner)
            .trim();
        filled.push_str(if trims_before {
            before.trim_end()
        } else {
            before
        });
        let is_comment = inner.starts_with("/*") && inner.ends_with("*/");
        if inner == CONTROL_PLANE_VERSION {
            filled.push_str(control_plane_version);
        } else if !is_comment {
            return Err(broken(&format!("{{{{{action}}}}} is not known")));
        }
        rest = if trims_behind {
            behind.trim_start()
        } else {
            behind
        };
    }
    filled.push_str(rest);
    if filled.len() > RENDERED_BYTES_MAX {
        return Err(broken("the content is above 1 MiB"));
    }
    Ok(filled)
}
