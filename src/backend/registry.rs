//! The backends by name: the four with an adapter of their own, the agents with a preset, and those in the user's
//! settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AcpAgent, Backend, ClaudeCode, Codex, CustomBackend, Gemini, OpenCode};
use crate::mission::hint::{Hint, Hinted};

/// All backends of this process. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    by_name: BTreeMap<String, Arc<dyn Backend>>,
}

/// A name that no backend has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the backend {name:?}: there are only {}", known.join(", "))]
pub struct UnknownBackend {
    pub name: String,
    pub known: Vec<String>,
}

impl Hinted for UnknownBackend {
    fn hints(&self) -> Vec<Hint> {
        vec![Hint::to("use one of these")]
    }
}

impl Backends {
    /// Creates the built-in backends and the user's. A custom backend replaces the agent of its name. It cannot have the
    /// name of one of the four: [`CustomBackend::check_settings`] refuses it when the settings are read, and here the
    /// built-in one wins.
    pub fn with_custom(customs: Vec<CustomBackend>) -> Self {
        let built_in: [Arc<dyn Backend>; 4] =
            [Arc::new(Codex::default()), Arc::new(ClaudeCode), Arc::new(Gemini), Arc::new(OpenCode)];
        let agents = AcpAgent::all().map(|agent| Arc::new(agent) as Arc<dyn Backend>);
        let customs = customs.into_iter().map(|custom| Arc::new(custom) as Arc<dyn Backend>);
        let by_name =
            agents.chain(customs).chain(built_in).map(|backend| (backend.name().to_owned(), backend)).collect();
        Self { by_name }
    }

    pub fn get(&self, name: &str) -> Result<Arc<dyn Backend>, UnknownBackend> {
        self.by_name
            .get(name)
            .cloned()
            .ok_or_else(|| UnknownBackend { name: name.to_owned(), known: self.names().map(str::to_owned).collect() })
    }

    /// Returns the names in alphabetical order, those of optional backends last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let of = |optional| self.by_name.iter().filter(move |(_, backend)| backend.is_optional() == optional);
        of(false).chain(of(true)).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_of_the_user_replaces_an_agent() {
        let entry = "name = 'qwen'\nprogram = '/opt/mine'";
        let backends = Backends::with_custom(vec![toml::from_str(entry).unwrap()]);
        assert_eq!(backends.get("qwen").unwrap().program(), "/opt/mine");
    }

    #[test]
    fn unknown_backend_lists_known_ones() {
        let error = Backends::with_custom(Vec::new()).get("claude").err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(
            error.starts_with(
                r#"cannot use the backend "claude": there are only claudecode, codex, gemini, opencode, "#
            )
        );
        assert!(error.ends_with(" kiro, opencode-acp, pi, qwen, vibe"), "{error}");
    }
}
