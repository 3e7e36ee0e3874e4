//! The backend to which a model belongs, and the efforts that each backend accepts. It has rules about names and no
//! list of models, which would be outdated within weeks. A name that matches no rule is passed to the CLI.

use super::Refusal;

pub const CODEX: &str = "codex";
pub const CLAUDE_CODE: &str = "claudecode";
pub const GEMINI: &str = "gemini";
pub const OPENCODE: &str = "opencode";

/// Returns the backend to which a model clearly belongs.
pub fn owner_of(model: &str) -> Option<&'static str> {
    let model = model.to_ascii_lowercase();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| model.starts_with(prefix));
    if model.starts_with("arn:") {
        return None; // A Bedrock address; Claude Code takes these.
    }
    if model.contains('/') {
        return Some(OPENCODE);
    }
    if starts(&["claude", "sonnet", "opus", "haiku", "fable"]) {
        return Some(CLAUDE_CODE);
    }
    if starts(&["gemini-"]) {
        return Some(GEMINI);
    }
    let o_series = model.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    (o_series || starts(&["gpt-", "chatgpt-", "codex"])).then_some(CODEX)
}

/// Returns a model for error texts and hints.
pub fn example_model(backend: &str) -> &'static str {
    match backend {
        CODEX => "gpt-5.5",
        CLAUDE_CODE => "sonnet",
        GEMINI => "gemini-2.5-pro",
        OPENCODE => "anthropic/claude-sonnet-4-5",
        _ => "",
    }
}

/// Returns the efforts that a built-in backend accepts. Codex passes on any word and Claude Code ignores an unknown
/// one, so only documented ones are accepted. OpenCode calls them variants and ignores one that its provider does not
/// have.
pub fn efforts_of(backend: &str) -> &'static [&'static str] {
    match backend {
        CODEX => &["none", "minimal", "low", "medium", "high", "xhigh"],
        CLAUDE_CODE => &["low", "medium", "high", "xhigh", "max"],
        OPENCODE => &["minimal", "low", "medium", "high", "xhigh", "max"],
        _ => &[],
    }
}

pub fn check_model(backend: &str, model: Option<&str>) -> Result<(), Refusal> {
    let Some(model) = model else { return Ok(()) };
    if let Some(why) = unusable(model) {
        return Err(Refusal::Model { backend: backend.into(), model: model.into(), accepted: why.into() });
    }
    // Codex uses such names for models of other providers too.
    let through_a_provider = backend == CODEX && model.starts_with("openai/");
    match owner_of(model) {
        Some(owner) if owner != backend && !through_a_provider => Err(Refusal::ForeignModel {
            model: model.into(),
            belongs_to: owner.into(),
            backend: backend.into(),
            example: example_model(backend).into(),
        }),
        _ => Ok(()),
    }
}

/// Checks a model of an agent. It accepts the models of one backend (`family`), those of several services (`None`), or
/// none at all (`can_choose` is false).
pub fn check_model_of_family(
    backend: &str,
    family: Option<&'static str>,
    model: Option<&str>,
    can_choose: bool,
) -> Result<(), Refusal> {
    let Some(model) = model else { return Ok(()) };
    let refused = |accepted: &str| {
        Err(Refusal::Model { backend: backend.into(), model: model.into(), accepted: accepted.into() })
    };
    if !can_choose {
        return refused("no way is known to choose its model; set it in its own configuration");
    }
    if let Some(why) = unusable(model) {
        return refused(why);
    }
    match (family, owner_of(model)) {
        (Some(family), Some(owner)) if owner != family => Err(Refusal::ForeignModel {
            model: model.into(),
            belongs_to: owner.into(),
            backend: backend.into(),
            example: example_model(family).into(),
        }),
        _ => Ok(()),
    }
}

/// Returns why a name cannot be that of a model. A command line could mistake such a name for an option.
pub fn unusable(model: &str) -> Option<&'static str> {
    let odd =
        model.is_empty() || model.starts_with('-') || model.contains(|c: char| c.is_whitespace() || c.is_control());
    odd.then_some("a model name has no spaces and does not begin with a hyphen")
}

pub fn check_effort(backend: &str, effort: Option<&str>) -> Result<(), Refusal> {
    check_effort_in(backend, efforts_of(backend), effort)
}

/// Checks an effort against those that a backend accepts.
pub fn check_effort_in(backend: &str, accepted: &[&str], effort: Option<&str>) -> Result<(), Refusal> {
    match effort {
        Some(effort) if !accepted.contains(&effort) => Err(Refusal::Effort {
            backend: backend.into(),
            effort: effort.into(),
            accepted: match accepted {
                [] => "none".into(),
                accepted => accepted.join(", "),
            },
        }),
        _ => Ok(()),
    }
}

/// Refuses a cost limit, for the backends that do not report their cost.
pub fn check_no_cost_limit(backend: &str, max_cost_usd: Option<f64>) -> Result<(), Refusal> {
    match max_cost_usd {
        Some(_) => Err(Refusal::Cost { backend: backend.into() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::hint::with_hints;

    #[test]
    fn clear_names_have_one_owner() {
        let cases = [
            ("gpt-5.5", Some(CODEX)),
            ("o3", Some(CODEX)),
            ("codex-auto-review", Some(CODEX)),
            ("claude-opus-5-5", Some(CLAUDE_CODE)),
            ("Sonnet", Some(CLAUDE_CODE)),
            ("opus[1m]", Some(CLAUDE_CODE)),
            ("gemini-3.8-flash", Some(GEMINI)),
            ("openai/gpt-5.5", Some(OPENCODE)),
            ("arn:aws:bedrock:eu-west-1:1:inference-profile/x", None),
            ("us.anthropic.claude-x", None),
            ("auto", None),
            ("opencoder", None),
        ];
        for (model, owner) in cases {
            assert_eq!(owner_of(model), owner, "{model}");
        }
    }

    #[test]
    fn foreign_model_is_refused_with_a_hint() {
        let refusal = with_hints(&check_model(CODEX, Some("sonnet")).unwrap_err());
        assert_eq!(
            refusal,
            r#"cannot use the model "sonnet" with "codex": it belongs to the backend "claudecode"; name the backend "claudecode", or name a model of "codex", such as "gpt-5.5", or leave out model_override"#
        );
        assert!(check_model(CODEX, Some("openai/gpt-oss-20b")).is_ok());
        assert!(check_model(CODEX, Some("--help")).is_err());
        assert!(check_model(GEMINI, None).is_ok());
    }

    #[test]
    fn every_example_belongs_to_its_backend() {
        for backend in [CODEX, CLAUDE_CODE, GEMINI, OPENCODE] {
            assert_eq!(owner_of(example_model(backend)), Some(backend));
        }
    }

    #[test]
    fn backend_without_efforts_is_named() {
        let refusal = with_hints(&check_effort(GEMINI, Some("high")).unwrap_err());
        assert_eq!(
            refusal,
            r#"cannot use the effort "high" with "gemini": it accepts none; use one that it accepts, or leave out model_effort"#
        );
        assert!(check_effort(CLAUDE_CODE, Some("max")).is_ok());
        assert!(check_effort(CLAUDE_CODE, Some("ultra")).is_err());
    }
}
