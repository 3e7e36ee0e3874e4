//! Profiles: named sets of mission fields (`[profiles.NAME]`). Their values are checked by the same functions as those
//! of a call. The caller resolves a profile before it registers anything.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::error::{ProfileError, UnknownProfile};
use super::fields::{
    self, FieldError, LINE, LONGEST_TIMEOUT_MINUTES, MAX_ATTEMPTS, MAX_COST_USD, MAX_FALLBACKS, MAX_PROFILE_NAME,
};
use super::spelling;
use crate::backend::Backends;
use crate::mission::id::BackendName;
use crate::mission::spec::{DEFAULT_TIMEOUT_MINUTES, Mission, Permissions, Place};

/// Fields of a mission that a profile may set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Backend: `codex`, `claudecode`, `gemini`, `opencode`, an ACP agent such as `copilot`, or one of your own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub backend: Option<String>,
    /// Model of that backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub model_override: Option<String>,
    /// Effort: `low`, `medium`, `high`, or another level of that backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub model_effort: Option<String>,
    /// Permissions of the worker. `full` needs the setting `allow_full_permissions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("enum" = ["read_only", "edit", "full"]))]
    pub permissions: Option<Permissions>,
    /// Shell command that prepares a new worktree before the worker starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub setup_command: Option<String>,
    /// Shell command that checks the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub verify_command: Option<String>,
    /// Time limit of the worker, from 1 to 10080.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LONGEST_TIMEOUT_MINUTES))]
    pub timeout_minutes: Option<u64>,
    /// Maximum cost of the worker, more than 0. Only for backends that report their cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_COST_USD), extend("exclusiveMinimum" = 0))]
    pub max_cost_usd: Option<f64>,
    /// Maximum number of tokens of the worker, read and written together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// Backends to try in order when the first one fails, at most 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_FALLBACKS))]
    pub fallback_backends: Option<Vec<String>>,
    /// Maximum number of attempts, from 1 to 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    pub max_attempts: Option<u64>,
}

impl Profile {
    /// Checks each value by itself, and returns the values in the form in which they are used.
    pub fn checked(self, backends: &Backends) -> Result<Self, FieldError> {
        let command = |field: &'static str| move |text: String| fields::text(field, text, LINE);
        let number = |field: &'static str, max: u64| move |value: u64| fields::range(field, value, 1, max);
        let names = |names: Vec<String>| {
            fields::range("the number of fallback_backends", names.len() as u64, 0, MAX_FALLBACKS)?;
            names.into_iter().map(|name| fields::backend(backends, name)).collect()
        };
        Ok(Self {
            backend: optional(self.backend, |name| fields::backend(backends, name))?,
            model_override: optional(self.model_override, |model| fields::name("model_override", model))?,
            model_effort: optional(self.model_effort, |effort| fields::name("model_effort", effort))?,
            permissions: self.permissions,
            setup_command: optional(self.setup_command, command("setup_command"))?,
            verify_command: optional(self.verify_command, command("verify_command"))?,
            timeout_minutes: optional(self.timeout_minutes, number("timeout_minutes", LONGEST_TIMEOUT_MINUTES))?,
            max_cost_usd: optional(self.max_cost_usd, fields::cost)?,
            max_tokens: optional(self.max_tokens, number("max_tokens", u64::MAX))?,
            fallback_backends: optional(self.fallback_backends, names)?,
            max_attempts: optional(self.max_attempts, number("max_attempts", MAX_ATTEMPTS))?,
        })
    }

    /// Returns these fields, completed by those of a profile, and the names of the fields that the profile supplied.
    pub fn completed_by(self, profile: &Self) -> (Self, Vec<&'static str>) {
        let mut supplied = Vec::new();
        let merged = Self {
            backend: own_or(self.backend, &profile.backend, "backend", &mut supplied),
            model_override: own_or(self.model_override, &profile.model_override, "model_override", &mut supplied),
            model_effort: own_or(self.model_effort, &profile.model_effort, "model_effort", &mut supplied),
            permissions: own_or(self.permissions, &profile.permissions, "permissions", &mut supplied),
            setup_command: own_or(self.setup_command, &profile.setup_command, "setup_command", &mut supplied),
            verify_command: own_or(self.verify_command, &profile.verify_command, "verify_command", &mut supplied),
            timeout_minutes: own_or(self.timeout_minutes, &profile.timeout_minutes, "timeout_minutes", &mut supplied),
            max_cost_usd: own_or(self.max_cost_usd, &profile.max_cost_usd, "max_cost_usd", &mut supplied),
            max_tokens: own_or(self.max_tokens, &profile.max_tokens, "max_tokens", &mut supplied),
            fallback_backends: own_or(
                self.fallback_backends,
                &profile.fallback_backends,
                "fallback_backends",
                &mut supplied,
            ),
            max_attempts: own_or(self.max_attempts, &profile.max_attempts, "max_attempts", &mut supplied),
        };
        (merged, supplied)
    }

    /// Checks for values that its own backend refuses in every mission.
    fn check_backend(&self, backends: &Backends) -> Result<(), ProfileError> {
        let Some(backend) = &self.backend else { return Ok(()) };
        let mission = Mission {
            title: String::new(),
            prompt: String::new(),
            backend: BackendName::from(backend.as_str()),
            model: self.model_override.clone(),
            effort: self.model_effort.clone(),
            // A placeholder: no backend checks the place.
            place: Place::Directory { path: Default::default() },
            setup_command: None,
            verify_command: None,
            task_id: "".into(),
            depends_on: Vec::new(),
            context_from: Vec::new(),
            timeout_minutes: DEFAULT_TIMEOUT_MINUTES,
            max_cost_usd: self.max_cost_usd,
            max_tokens: self.max_tokens,
            fallback_backends: Vec::new(),
            max_attempts: 1,
            request_id: None,
            permissions: self.permissions.unwrap_or_default(),
            run_on: None,
            profile: None,
        };
        backends.get(backend).map_err(FieldError::from)?.check(&mission)?;
        Ok(())
    }
}

fn optional<T, U>(value: Option<T>, check: impl FnOnce(T) -> Result<U, FieldError>) -> Result<Option<U>, FieldError> {
    value.map(check).transpose()
}

fn own_or<T: Clone>(
    own: Option<T>,
    other: &Option<T>,
    name: &'static str,
    supplied: &mut Vec<&'static str>,
) -> Option<T> {
    if own.is_none() && other.is_some() {
        supplied.push(name);
    }
    own.or_else(|| other.clone())
}

impl Settings {
    /// Returns the profile of this name.
    pub fn profile(&self, name: &str) -> Result<&Profile, UnknownProfile> {
        self.profiles.get(name).ok_or_else(|| UnknownProfile {
            name: name.to_owned(),
            known: self.profiles.keys().cloned().collect(),
            meant: spelling::nearest(name, self.profiles.keys().map(String::as_str)).map(str::to_owned),
        })
    }

    /// Checks a profile as far as possible without a mission, and returns it with its values as they are used.
    pub(super) fn checked_profile(
        &self,
        name: &str,
        profile: Profile,
        backends: &Backends,
    ) -> Result<Profile, ProfileError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > MAX_PROFILE_NAME || !name.chars().all(is_plain) {
            return Err(ProfileError::Name);
        }
        let profile = profile.checked(backends)?;
        if profile.permissions == Some(Permissions::Full) && !self.allow_full_permissions {
            return Err(ProfileError::FullPermissions);
        }
        profile.check_backend(backends)?;
        Ok(profile)
    }
}
