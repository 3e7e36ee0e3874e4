//! The differences between agents that the protocol permits. The default fits an agent about which nothing is known.

use serde_json::Value;

use super::usage::UsageMeaning;

/// The traits of one agent, for one mission.
#[derive(Debug, Clone, Default)]
pub struct Traits {
    /// The settings to apply to each session, in this order.
    pub settings: Vec<SessionSetting>,
    pub usage: UsageMeaning,
    /// True if its own notices, each in one piece, come unmarked among the model's words.
    pub mixes_notices: bool,
    pub messages: LiveMessages,
    /// True if a good turn always ends with a usage and a failed one never does.
    pub usage_shows_success: bool,
    /// The model that the agent was started with, if it must be checked: the agent silently replaces an unknown one.
    pub expected_model: Option<String>,
    /// Login methods in order of preference, for an agent that must log in before each session.
    pub login_methods: &'static [&'static str],
    /// The `_meta` of the requests that open a session.
    pub session_meta: Option<Value>,
    /// Further directories that the agent may write to, if it accepts any.
    pub writable: Vec<String>,
}

/// A setting of a session, applied before the first prompt. Agents forget some of them when a session is resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSetting {
    pub kind: SettingKind,
    /// The accepted values, in order of preference: the first one that the agent offers is set.
    pub values: Vec<String>,
    /// True if the mission cannot be carried out without it. Otherwise a missing setting is a warning.
    pub is_required: bool,
}

/// The kind of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    Mode,
    Model,
    Effort,
    /// A setting with this id that is none of the others.
    Other(&'static str),
}

/// The way in which a running turn can receive a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LiveMessages {
    /// It cannot receive one: the next turn gets the message.
    #[default]
    NextTurn,
    /// By a second prompt, which joins the running turn. Both are answered at its end.
    SecondPrompt,
    /// By the extension `_session/steering`, if the agent advertises it.
    Steering,
    /// The agent asks for waiting messages after each group of tool calls, by `craft/drainMidTurnQueue`.
    Drained,
}
