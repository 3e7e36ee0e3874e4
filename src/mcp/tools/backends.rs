//! Reports which agent CLIs can be used here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mission::backend;
use super::{Tool, ToolCall, ToolKind};
use crate::config::{Confine, LauncherKind, Profile};
use crate::mcp::arguments::optional;
use crate::mcp::error::ToolError;
use crate::mcp::{size, wire};
use crate::orchestrator::{BackendView, LauncherView};
use crate::process::confine::{self, Restriction, Support};

const ENVELOPE: usize = 300;
/// Maximum number of bytes of all profiles.
const PROFILES: usize = 2_500;
const MODELS_SHOWN: usize = 12;
/// Maximum size in bytes of `waking`.
const WAKING: usize = 300;
/// Size in bytes of the name of `launchers` and what surrounds it.
const LAUNCHERS_KEY: usize = 20;
/// Maximum size in bytes of `confinement`.
const CONFINEMENT: usize = 200;

pub(super) struct GetBackendStatus;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendArguments {
    /// Default: all.
    backend: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BackendsReport {
    next_step: String,
    backends: Vec<BackendReport>,
    /// Way in which you are woken.
    waking: String,
    /// Whether the kernel confines workers.
    confinement: String,
    /// The clusters for run_on, if the settings name any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(skip)]
    launchers: Vec<LauncherReport>,
    /// Further agents. Name one as `backend` to learn how to install it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_installed: Vec<String>,
    /// The user's profiles by name, each with the fields that it gives a mission.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "Option<wire::ObjectPlaceholder>")]
    profiles: BTreeMap<String, Profile>,
    /// Number of omitted profiles.
    #[serde(skip_serializing_if = "wire::is_zero")]
    more_profiles: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BackendReport {
    backend: String,
    installed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Set if this version was not tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    untested: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// yes, no, or unknown if a check would cost money.
    authenticated: Authenticated,
    #[serde(skip_serializing_if = "Option::is_none")]
    how_to_fix: Option<String>,
    /// Examples.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
    running: usize,
    queued: usize,
    /// Maximum number of parallel workers.
    limit: usize,
    /// Why the first queued worker has not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    /// Its login is invalid or its limit is reached; queued workers wait until then at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_until: Option<String>,
    /// Whether its workers can ask.
    #[schemars(with = "String")]
    asks: &'static str,
}

/// A cluster on which workers can run.
#[derive(Debug, Serialize)]
struct LauncherReport {
    name: String,
    kind: LauncherKind,
    answers: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    waiting: usize,
    running: usize,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Authenticated {
    Yes,
    No,
    Unknown,
}

impl Tool for GetBackendStatus {
    const NAME: &'static str = "get_backend_status";
    const DESCRIPTION: &'static str = "\
Show which agent CLIs (backends) can work here: installed, version, logged in, models, load, how to fix what is \
missing (install, login), and the user's profiles. Call it once before the first missions, and after auth_error or \
could_not_start.";
    const KIND: ToolKind = ToolKind::ReadOnly;
    type Arguments = BackendArguments;
    type Answer = BackendsReport;

    async fn run(call: ToolCall, arguments: BackendArguments) -> Result<BackendsReport, ToolError> {
        let only = optional(arguments.backend, |name| backend(&call.orchestrator, name))?;
        let views = call.orchestrator.backend_status(only.as_ref()).await?;
        let waking = waking(&call).await?;
        let settings = call.orchestrator.settings();
        let confinement = confinement(settings.confine, confine::support());
        let report = BackendsReport::new(&views, &settings.profiles, waking, confinement);
        Ok(report.with_launchers(&call.orchestrator.launchers().await?))
    }
}

/// Returns how the calling boss is woken, with the last failure to wake one.
async fn waking(call: &ToolCall) -> Result<String, ToolError> {
    let how = match call.turn_before_wake() {
        _ if call.can_wait_as_task() => {
            "a wait that would block goes on in the background, and its end wakes you".to_owned()
        }
        Ok(_) => "with background: true you may end your turn; a message wakes you".to_owned(),
        Err(why) => format!("the wait blocks: {why}"),
    };
    let failure = call.orchestrator.wake_failure().await?;
    let failed = failure.map(|failure| format!("; at {:.0} it failed: {}", failure.at, failure.reason));
    Ok(size::line(&(how + &failed.unwrap_or_default()), WAKING))
}

/// Returns what the kernel of this machine does for workers with these settings.
fn confinement(confine: Confine, support: Support) -> String {
    let line = match (confine, support) {
        (Confine::Off, _) => "off, by the settings".to_owned(),
        (_, Support::Yes(Restriction { by, abi, .. })) => {
            let version = abi.map(|abi| format!(" {abi}")).unwrap_or_default();
            format!("workers write only to their worktrees and allowed folders, by {}{version}", by.as_str())
        }
        (Confine::Require, Support::No { why }) => format!("no worker starts, since the settings require it: {why}"),
        (Confine::Auto, Support::No { why }) => format!("none: {why}"),
    };
    size::line(&line, CONFINEMENT)
}

impl BackendsReport {
    fn new(views: &[BackendView], profiles: &BTreeMap<String, Profile>, waking: String, confinement: String) -> Self {
        let usable = |view: &&BackendView| view.installed && view.authenticated != Some(false);
        let next_step = match views.iter().find(usable) {
            Some(_) => "batch_create_workers with backends that are installed and logged in".to_owned(),
            None => "give the user how_to_fix; no worker can run until then".to_owned(),
        };
        let (profiles, more_profiles) =
            size::fit(profiles.iter().map(|(name, profile)| (name.clone(), shown(profile))), PROFILES);
        let is_left_out = |view: &&BackendView| views.len() > 1 && view.is_optional && !view.installed;
        let not_installed: Vec<String> =
            views.iter().filter(is_left_out).map(|view| view.backend.to_string()).collect();
        let room =
            size::ANSWER - ENVELOPE - size::of(&profiles) - size::of(&not_installed) - size::of(&waking) - CONFINEMENT;
        let listed = views.iter().filter(|view| !is_left_out(view));
        let (backends, _) = size::fit(listed.map(BackendReport::new), room);
        let profiles = profiles.into_iter().collect();
        let launchers = Vec::new();
        Self { backends, next_step, waking, confinement, launchers, not_installed, profiles, more_profiles }
    }

    /// Adds as many launchers as there is room for.
    fn with_launchers(self, views: &[LauncherView]) -> Self {
        let room = size::ANSWER.saturating_sub(size::of(&self) + LAUNCHERS_KEY);
        let (launchers, _) = size::fit(views.iter().map(LauncherReport::new), room);
        Self { launchers, ..self }
    }
}

impl LauncherReport {
    fn new(view: &LauncherView) -> Self {
        Self {
            name: view.name.clone(),
            kind: view.kind,
            answers: if view.answers { "yes" } else { "no" },
            problem: view.problem.as_deref().map(|problem| size::line(problem, 160)),
            waiting: view.waiting,
            running: view.running,
            limit: view.limit,
        }
    }
}

/// Returns a profile with every text cut to size.
fn shown(profile: &Profile) -> Profile {
    let cut = |text: &Option<String>, most| text.as_deref().map(|text| size::line(text, most));
    let names = |names: &Vec<String>| names.iter().map(|name| size::line(name, 60)).collect();
    Profile {
        backend: cut(&profile.backend, 60),
        model_override: cut(&profile.model_override, 60),
        model_effort: cut(&profile.model_effort, 60),
        setup_command: cut(&profile.setup_command, 200),
        verify_command: cut(&profile.verify_command, 200),
        fallback_backends: profile.fallback_backends.as_ref().map(names),
        ..profile.clone()
    }
}

impl BackendReport {
    fn new(view: &BackendView) -> Self {
        Self {
            backend: size::line(view.backend.as_str(), 60),
            installed: view.installed,
            version: view.version.as_deref().map(|version| size::line(version, 60)),
            untested: view.untested.as_deref().map(|what| size::line(what, 120)),
            path: view.path.as_ref().map(|path| size::line(&path.to_string_lossy(), 200)),
            authenticated: match view.authenticated {
                Some(true) => Authenticated::Yes,
                Some(false) => Authenticated::No,
                None => Authenticated::Unknown,
            },
            how_to_fix: view.how_to_fix.as_deref().map(|how| size::line(how, 300)),
            models: view.models.iter().take(MODELS_SHOWN).map(|model| size::line(model, 60)).collect(),
            running: view.running,
            queued: view.queued,
            limit: view.limit,
            waits_for: view.waits_for.as_deref().map(|what| size::line(what, 160)),
            held_until: view.held_until.map(|until| until.to_string()),
            asks: if view.asks { "yes" } else { "no" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::confined::{Enforcer, Reads};
    use crate::mission::id::BackendName;

    #[test]
    fn unusable_backend_has_a_fix() {
        let view = BackendView {
            backend: BackendName::from("codex"),
            is_optional: false,
            installed: true,
            version: Some("0.9.0".into()),
            untested: None,
            path: None,
            authenticated: Some(false),
            how_to_fix: Some("codex login".into()),
            models: Vec::new(),
            running: 0,
            queued: 2,
            limit: 4,
            waits_for: Some("a free slot".into()),
            held_until: None,
            asks: false,
        };
        let report =
            BackendsReport::new(&[view], &BTreeMap::new(), "the wait blocks".into(), "none: old kernel".into());
        let report = serde_json::to_value(report).unwrap();
        let expected = serde_json::json!({
            "backends": [{
                "backend": "codex", "installed": true, "version": "0.9.0", "authenticated": "no",
                "how_to_fix": "codex login", "running": 0, "queued": 2, "limit": 4,
                "waits_for": "a free slot", "asks": "no"
            }],
            "next_step": "give the user how_to_fix; no worker can run until then",
            "waking": "the wait blocks",
            "confinement": "none: old kernel"
        });
        assert_eq!(report, expected);
    }

    #[test]
    fn confinement_follows_settings_and_kernel() {
        let no = || Support::No { why: "no Landlock".to_owned() };
        let yes = Support::Yes(Restriction { by: Enforcer::Landlock, abi: Some(7), signals: true, reads: Reads::All });
        assert_eq!(
            confinement(Confine::Auto, yes.clone()),
            "workers write only to their worktrees and allowed folders, by landlock 7"
        );
        assert_eq!(confinement(Confine::Off, yes), "off, by the settings");
        assert_eq!(confinement(Confine::Auto, no()), "none: no Landlock");
        assert!(confinement(Confine::Require, no()).starts_with("no worker starts"));
    }

    #[test]
    fn profiles_have_only_their_own_fields() {
        let profile = Profile { backend: Some("codex".into()), max_attempts: Some(2), ..Profile::default() };
        let report =
            BackendsReport::new(&[], &BTreeMap::from([("cheap".to_owned(), profile)]), String::new(), String::new());
        let report = serde_json::to_value(report).unwrap();
        assert_eq!(report["profiles"], serde_json::json!({"cheap": {"backend": "codex", "max_attempts": 2}}));
        assert_eq!(report.get("more_profiles"), None);
    }

    #[test]
    fn many_profiles_fit_and_are_counted() {
        let long = "\u{1}\"é\n".repeat(2_000);
        let profile = Profile {
            model_override: Some(long.clone()),
            verify_command: Some(long.clone()),
            fallback_backends: Some(vec![long; 10]),
            ..Profile::default()
        };
        let profiles: BTreeMap<_, _> = (0..100).map(|number| (format!("p{number:03}"), profile.clone())).collect();
        let report = BackendsReport::new(&[], &profiles, "x".repeat(WAKING), "x".repeat(CONFINEMENT));
        assert!(!report.profiles.is_empty());
        assert_eq!(report.profiles.len() + report.more_profiles, 100);
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
    }
}
