//! Errors of the settings: of their file, of its text, and of the variables.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::fields::{FieldError, MAX_PROFILE_NAME};
use crate::backend::{CustomError, Refusal};
use crate::mission::causes::in_plain_types;
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the settings file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot use the settings file {}", path.display())]
    Invalid { path: PathBuf, source: InvalidSettings },
    #[error("cannot use the variable {found}: there is none of that name")]
    Variable { found: String, meant: &'static str },
    #[error("cannot use the variable {variable}={value:?}: it is not a whole number")]
    NotANumber { variable: &'static str, value: String },
    #[error("cannot use the variable {variable}={value:?}: it is not an amount")]
    NotAnAmount { variable: &'static str, value: String },
}

/// The reason why the text of a settings file cannot be used.
#[derive(Debug, Error)]
pub enum InvalidSettings {
    #[error("{}", in_plain_types(.0.to_string().trim_end()))]
    Malformed(toml::de::Error),
    #[error("{}there is no setting {name:?} here", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    UnknownSetting { name: String, line: Option<usize>, instead: Hint },
    #[error("{}a profile cannot set {name:?}: {why}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    NotInProfile { name: String, line: Option<usize>, why: &'static str },
    #[error("cannot use [profiles.{name}]")]
    Profile { name: String, source: Box<ProfileError> },
    #[error(transparent)]
    Custom(#[from] CustomError),
    #[error("two [[custom]] have the name {name:?}")]
    CustomTwice { name: String },
    #[error("[repositories.{name:?}] names neither an absolute path nor a URL")]
    Repository { name: String },
    #[error("[backends.{name}] is of no backend")]
    UnknownBackend { name: String, instead: Hint },
    #[error("cannot use [launchers.{name}]")]
    Launcher { name: String, source: Box<LauncherError> },
    #[error("{setting} = {:?} is no launcher: there are only {}", unknown.name, unknown.known.join(", "))]
    NamedLauncher { setting: &'static str, unknown: UnknownLauncher },
    #[error("stall_minutes = {0} is not a time")]
    StallMinutes(f64),
    #[error("question_minutes = {0} is not a time")]
    QuestionMinutes(f64),
    #[error("setup_timeout_minutes = {0} is not a time")]
    SetupTimeout(f64),
    #[error("seed names {0:?}, which cannot be copied into a worktree")]
    Seed(String),
    #[error("prune names {0:?}, which is not a path inside a worktree")]
    Prune(String),
    #[error("{setting} names {path:?}, which {why}")]
    ConfinePath { setting: &'static str, path: PathBuf, why: &'static str },
    #[error("integration_branch is empty")]
    EmptyBranch,
    #[error("only one of commit_name and commit_email is set")]
    HalfIdentity,
    #[error("there is no {{{name}}} in {setting}")]
    UnknownPlaceholder { setting: &'static str, name: String, meant: String },
    #[error("prompt_frame has no {{prompt}}, so workers would not receive their missions")]
    NoPrompt,
    #[error(
        "prompt_frame has {{prompt}} and {{{name}}} in one line, which is left out for a mission without {{{name}}}"
    )]
    PromptNotAlone { name: &'static str },
    #[error("[boss] max_cost_usd = {0} is not an amount")]
    MaxCost(f64),
}

/// The reason why a profile cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    #[error("its name may contain only letters, digits, hyphens and underscores, at most {MAX_PROFILE_NAME}")]
    Name,
    #[error("its permissions are full, which the settings do not allow")]
    FullPermissions,
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The error for a name that no profile has.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("cannot use the profile {name:?}: {}", if known.is_empty() {
    "the user's settings have no profiles".to_owned()
} else {
    format!("there are only {}", known.join(", "))
})]
pub struct UnknownProfile {
    pub name: String,
    pub known: Vec<String>,
    /// The known name that is similar.
    pub meant: Option<String>,
}

/// The reason why a launcher cannot be used.
#[derive(Debug, Error)]
pub enum LauncherError {
    #[error("its name may contain only letters, digits, hyphens and underscores, at most {MAX_PROFILE_NAME}")]
    Name,
    #[error("its name is that of the launcher for this machine")]
    Taken,
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("memory = {0:?} is not a size")]
    Memory(String),
    #[error("program = {0:?} is not a full path")]
    Program(PathBuf),
    #[error("args may not contain {0:?}, which this program sets or which breaks its jobs")]
    OwnOption(String),
    #[error("args may not contain {0:?}, which is not an option: sbatch would run it as the job")]
    NotAnOption(String),
    #[error("prologue may not contain {0:?}: sbatch would read options from it")]
    OptionComment(String),
    #[error("pass_env may not contain {0:?}, which is not the name of a variable")]
    Variable(String),
}

/// The error for a name that no launcher has.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("cannot use the launcher {name:?}: there are only {}", known.join(", "))]
pub struct UnknownLauncher {
    pub name: String,
    pub known: Vec<String>,
    /// The known name that is similar.
    pub meant: Option<String>,
}

impl Hinted for ConfigError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Read { .. } => Vec::new(),
            Self::Invalid { source, .. } => source.hints(),
            Self::Variable { meant, .. } => vec![did_you_mean(meant)],
            Self::NotANumber { .. } => vec![Hint::to("unset it"), Hint::to("give a whole number")],
            Self::NotAnAmount { .. } => vec![Hint::to("unset it"), Hint::to("give an amount of US dollars")],
        }
    }
}

impl Hinted for InvalidSettings {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Malformed(_) | Self::Custom(_) => Vec::new(),
            Self::NotInProfile { .. } => vec![Hint::to("give it in each mission")],
            Self::Profile { source, .. } => source.hints(),
            Self::Launcher { source, .. } => source.hints(),
            Self::NamedLauncher { unknown, .. } => unknown.hints(),
            Self::UnknownSetting { instead, .. } | Self::UnknownBackend { instead, .. } => vec![instead.clone()],
            Self::CustomTwice { .. } => vec![Hint::to("choose another name")],
            Self::Repository { .. } => vec![
                Hint::to("give the path of the main worktree, such as ~/src/shop"),
                Hint::to("give the URL of a remote"),
            ],
            Self::StallMinutes(_) | Self::QuestionMinutes(_) => {
                vec![Hint::to("give a number of minutes, or 0 for never")]
            }
            Self::SetupTimeout(_) => vec![Hint::to("give a number of minutes")],
            Self::Seed(_) => vec![Hint::to("give a path in the main worktree, relative to its root and outside .git")],
            Self::Prune(_) => {
                vec![Hint::to("give the name of a folder, or a path relative to the root of a worktree")]
            }
            Self::ConfinePath { .. } => {
                vec![Hint::to("give the full path of one folder, or its path in your home folder as ~/folder")]
            }
            Self::EmptyBranch => vec![Hint::to("name a branch, or leave it out")],
            Self::HalfIdentity => vec![Hint::to("give both, or neither to use your git identity")],
            Self::UnknownPlaceholder { meant, .. } => vec![did_you_mean(&format!("{{{meant}}}"))],
            Self::NoPrompt => vec![Hint::to("add {prompt}")],
            Self::PromptNotAlone { .. } => vec![Hint::to("give {prompt} a line of its own")],
            Self::MaxCost(_) => vec![Hint::to("give an amount of US dollars, or leave it out")],
        }
    }
}

impl Hinted for ProfileError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Name => vec![Hint::to("choose another name")],
            Self::FullPermissions => vec![Hint::to("use \"edit\""), Hint::Set("allow_full_permissions")],
            // The error texts already name the accepted values.
            Self::Field(_) => Vec::new(),
            Self::Refused(refusal) => refusal.hints(),
        }
    }
}

impl Hinted for UnknownProfile {
    fn hints(&self) -> Vec<Hint> {
        match &self.meant {
            Some(meant) => vec![did_you_mean(meant)],
            None if self.known.is_empty() => vec![Hint::to("leave out `profile`")],
            None => vec![Hint::to("use one of these")],
        }
    }
}

impl Hinted for LauncherError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Name | Self::Taken => vec![Hint::to("choose another name")],
            // The text already names the accepted values.
            Self::Field(_) => Vec::new(),
            Self::Memory(_) => vec![Hint::to("give a number of MB, or one with a unit, such as 8G")],
            Self::Program(_) => vec![Hint::to("give its full path on the nodes, or leave it out")],
            Self::OwnOption(_) => vec![Hint::to("leave it out")],
            Self::NotAnOption(_) => {
                vec![Hint::to("give an option and its value as one argument, such as --exclude=n13")]
            }
            Self::OptionComment(_) => vec![Hint::to("give the options in args")],
            Self::Variable(_) => vec![Hint::to("give the name of a variable, without its value")],
        }
    }
}

impl Hinted for UnknownLauncher {
    fn hints(&self) -> Vec<Hint> {
        match &self.meant {
            Some(meant) => vec![did_you_mean(meant)],
            None => {
                vec![Hint::to("use one of these"), Hint::to(format!("add [launchers.{}] to the settings", self.name))]
            }
        }
    }
}

pub(super) fn did_you_mean(name: &str) -> Hint {
    Hint::to(format!("did you mean {name}?"))
}
