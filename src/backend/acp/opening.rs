//! The steps before the first prompt: the version, the login, the session and its settings. If one fails, the agent has
//! not done any work yet.

use serde_json::{Value, json};

use super::failures::{LOGIN_REQUIRED, of_error};
use super::settings::{SettingRequest, current, noun, request};
use super::traits::{SessionSetting, SettingKind};
use super::{AcpStream, State, VERSION};
use crate::backend::AgentEvent;
use crate::backend::failure::failure;
use crate::backend::lines::{items, one_line, text, warning};
use crate::mission::outcome::{Failure, FailureKind};

/// Maximum size in bytes of the id of a session.
const SESSION_ID_LIMIT: usize = 1024;

impl AcpStream {
    /// Takes the answer to the request of a step before the first prompt.
    pub(super) fn step_answered(&mut self, result: Result<&Value, &Value>) -> Vec<AgentEvent> {
        match (self.state, result) {
            (State::Initializing, Ok(result)) => self.initialized(result),
            (State::Authenticating, Ok(_)) => self.open(),
            (State::Opening { resumed }, Ok(result)) => self.opened(resumed, result),
            (State::Opening { resumed: true }, Err(error)) if error["code"] != LOGIN_REQUIRED => {
                let why = one_line(&of_error(error).message);
                self.open_anew(&format!("the agent could not resume the session ({why})"))
            }
            (State::Applying { resumed, .. }, Ok(_)) => self.apply_next(resumed),
            (State::Applying { kind, .. }, Err(error)) => {
                let cause = of_error(error);
                self.turn_failed(not_applied(kind, &cause.message))
            }
            (_, Err(error)) => self.turn_failed(of_error(error)),
            // Unreachable, since no step is open then.
            (State::Turn | State::Idle, Ok(_)) => Vec::new(),
        }
    }

    fn initialized(&mut self, result: &Value) -> Vec<AgentEvent> {
        let version = &result["protocolVersion"];
        if version.as_u64() != Some(VERSION) {
            let why = format!("the agent speaks version {version} of the protocol, and only {VERSION} is supported");
            return self.turn_failed(failure(FailureKind::Other, why));
        }
        self.accepts_steering = result.pointer("/_meta/steering/supported") == Some(&Value::Bool(true));
        let capabilities = "/agentCapabilities/sessionCapabilities/additionalDirectories";
        self.accepts_directories = result.pointer(capabilities).is_some_and(Value::is_object);
        self.offers = result.clone();
        let offered = |wanted: &&&str| items(result, "/authMethods").any(|method| text(method, "/id") == **wanted);
        match self.traits.login_methods.iter().find(offered) {
            Some(method) => {
                self.send(State::Authenticating, "authenticate", json!({"methodId": method}));
                Vec::new()
            }
            None => self.open(),
        }
    }

    /// Opens the session: a new one, or the one to resume.
    fn open(&mut self) -> Vec<AgentEvent> {
        let Some(id) = self.resumes.clone() else {
            self.open_new();
            return Vec::new();
        };
        let offers = |place: &str| {
            let offered = self.offers.pointer(place);
            offered.is_some_and(|it| it.is_object() || *it == Value::Bool(true))
        };
        let method = if offers("/agentCapabilities/sessionCapabilities/resume") {
            "session/resume"
        } else if offers("/agentCapabilities/loadSession") {
            "session/load"
        } else {
            return self.open_anew("the agent cannot resume sessions");
        };
        let mut params = self.session_params();
        params["sessionId"] = json!(id);
        self.send(State::Opening { resumed: true }, method, params);
        Vec::new()
    }

    fn open_new(&mut self) {
        let params = self.session_params();
        self.send(State::Opening { resumed: false }, "session/new", params);
    }

    fn session_params(&self) -> Value {
        let mut params = json!({"cwd": self.directory, "mcpServers": []});
        if self.accepts_directories && !self.traits.writable.is_empty() {
            params["additionalDirectories"] = json!(self.traits.writable);
        }
        if let Some(meta) = &self.traits.session_meta {
            params["_meta"] = meta.clone();
        }
        params
    }

    /// Opens a new session in place of the one to resume. Its prompt contains the mission.
    fn open_anew(&mut self, why: &str) -> Vec<AgentEvent> {
        self.prompt = format!(
            "Your earlier session is lost, so you do not know what you did in it. The files are as you left them.\n\n{}",
            self.prompt_anew
        );
        self.open_new();
        vec![warning(&format!("{why}, so a new session begins with the mission"))]
    }

    fn opened(&mut self, resumed: bool, result: &Value) -> Vec<AgentEvent> {
        let id = match &self.resumes {
            Some(id) if resumed => id.clone(),
            _ => text(result, "/sessionId").to_owned(),
        };
        if id.is_empty() || id.len() > SESSION_ID_LIMIT {
            let why = "the agent opened a session without an id, or with one that is too long";
            return self.turn_failed(failure(FailureKind::Other, why));
        }
        self.session_id = Some(id.clone());
        self.offers = result.clone();
        if let Some(other) = self.unexpected_model() {
            let why = format!("the agent uses {other:?} instead");
            return self.turn_failed(not_applied(SettingKind::Model, &why));
        }
        self.settings = self.traits.settings.iter().cloned().collect();
        self.apply_next(resumed)
    }

    /// Applies the next setting, or sends the first prompt if there is none.
    fn apply_next(&mut self, resumed: bool) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        while let Some(setting) = self.settings.pop_front() {
            match self.setting_request(&setting) {
                Ok((method, params)) => {
                    self.send(State::Applying { kind: setting.kind, resumed }, method, params);
                    return events;
                }
                Err(why) if setting.is_required => {
                    events.extend(self.turn_failed(not_applied(setting.kind, &why)));
                    return events;
                }
                Err(why) => events.push(warning(&not_applied(setting.kind, &why).message)),
            }
        }
        self.offers = Value::Null;
        let prompt = std::mem::take(&mut self.prompt);
        self.send_prompt(&prompt);
        (self.follows_history, self.is_prompted) = (resumed, true);
        let id = self.session_id.clone().unwrap_or_default();
        events.push(AgentEvent::Session { id, model: None });
        events
    }

    /// Returns the model that the agent uses in place of the one that it was started with.
    fn unexpected_model(&self) -> Option<String> {
        let expected = self.traits.expected_model.as_deref()?;
        current(SettingKind::Model, &self.offers).filter(|model| *model != expected).map(str::to_owned)
    }

    fn setting_request(&self, setting: &SessionSetting) -> Result<SettingRequest, String> {
        request(setting, &self.offers, self.session_id.as_deref().unwrap_or_default())
    }
}

/// Returns the failure of a setting that the agent did not accept.
fn not_applied(kind: SettingKind, why: &str) -> Failure {
    let failure_kind = match kind {
        SettingKind::Model => FailureKind::ModelNotFound,
        _ => FailureKind::Other,
    };
    failure(failure_kind, format!("cannot set the agent's {}: {why}", noun(kind)))
}
