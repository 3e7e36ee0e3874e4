//! Finds the place of an error in the text of a settings file.

use super::error::{InvalidSettings, LauncherError, ProfileError};
use super::fields::FieldError;

/// A place in a text: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl InvalidSettings {
    /// Returns the place of the error in the text. `None` if it is unknown.
    pub fn position(&self, text: &str) -> Option<Position> {
        let begins_with = |key: &'static str| first_line(text, move |line| names(line, key));
        match self {
            Self::Malformed(error) => error.span().map(|span| at_byte(text, span.start)),
            Self::UnknownSetting { name, line, .. } | Self::NotInProfile { name, line, .. } => {
                let line = (*line)?;
                let column = text.lines().nth(line - 1)?.find(name.as_str()).map_or(1, |at| at + 1);
                Some(Position { line, column })
            }
            Self::Profile { name, source } => in_section(text, "profiles", name, |line| source.is_about(line)),
            Self::Launcher { name, source } => in_section(text, "launchers", name, |line| source.is_about(line)),
            Self::NamedLauncher { setting, .. } => begins_with(setting),
            Self::Custom(error) => first_line(text, |line| names(line, "name") && line.contains(error.backend())),
            Self::CustomTwice { name } => {
                let titles = ["\"", "'"].map(|quote| format!("{quote}{name}{quote}"));
                let value = |line: &str| line.split_once('=').map(|(_, value)| value.trim_start().to_owned());
                let has_name = |value: String| titles.iter().any(|title| value.starts_with(title.as_str()));
                nth_line(text, 1, |line| names(line, "name") && value(line).is_some_and(has_name))
            }
            Self::Repository { name } => {
                first_line(text, |line| line.starts_with("[repositories") && line.contains(name.as_str()))
            }
            Self::UnknownBackend { name, .. } => {
                first_line(text, |line| line.starts_with("[backends") && line.contains(name.as_str()))
            }
            Self::StallMinutes(_) => begins_with("stall_minutes"),
            Self::QuestionMinutes(_) => begins_with("question_minutes"),
            Self::SetupTimeout(_) => begins_with("setup_timeout_minutes"),
            Self::Prune(_) => begins_with("prune"),
            Self::ConfinePath { setting, .. } => begins_with(setting),
            Self::Seed(_) => begins_with("seed"),
            Self::EmptyBranch => begins_with("integration_branch"),
            Self::HalfIdentity => begins_with("commit_name").or_else(|| begins_with("commit_email")),
            Self::UnknownPlaceholder { setting, .. } => begins_with(setting),
            Self::NoPrompt | Self::PromptNotAlone { .. } => begins_with("prompt_frame"),
            Self::MaxCost(_) => begins_with("max_cost_usd"),
        }
    }
}

impl ProfileError {
    /// Returns whether a line of the profile's section sets the refused field.
    fn is_about(&self, line: &str) -> bool {
        let sets = |key: &str| names(line, key);
        match self {
            Self::Name => false,
            Self::FullPermissions => sets("permissions"),
            Self::Field(FieldError::Backend(unknown)) => {
                (sets("backend") || sets("fallback_backends")) && line.contains(&unknown.name)
            }
            Self::Field(error) => error.key().is_some_and(sets),
            Self::Refused(refusal) => refusal.fields().first().is_some_and(|field| sets(field)),
        }
    }
}

impl LauncherError {
    /// Returns whether a line of the launcher's section sets the refused field.
    fn is_about(&self, line: &str) -> bool {
        let sets = |key: &str| names(line, key);
        match self {
            Self::Name | Self::Taken => false,
            Self::Field(error) => error.key().is_some_and(sets),
            Self::Memory(_) => sets("memory"),
            Self::Program(_) => sets("program"),
            Self::OwnOption(_) | Self::NotAnOption(_) => sets("args"),
            Self::OptionComment(_) => sets("prologue"),
            Self::Variable(_) => sets("pass_env"),
        }
    }
}

/// Returns the position of the first wanted line in the section of a profile or launcher, or else of the section's title.
fn in_section(text: &str, section: &str, name: &str, is_wanted: impl Fn(&str) -> bool) -> Option<Position> {
    let titles = ["", "\"", "'"].map(|quote| format!("[{section}.{quote}{name}{quote}]"));
    let is_title = |line: &str| titles.iter().any(|title| line.starts_with(title.as_str()));
    let at = text.lines().position(|line| is_title(line.trim_start()))?;
    let inside = text.lines().skip(at + 1).take_while(|line| !line.trim_start().starts_with('['));
    let line = inside.zip(at + 1..).find(|(line, _)| is_wanted(line.trim_start())).map_or(at, |(_, line)| line);
    let indent = text.lines().nth(line).map_or(0, |line| line.len() - line.trim_start().len());
    Some(Position { line: line + 1, column: indent + 1 })
}

/// Returns whether the line sets this key.
fn names(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
}

fn first_line(text: &str, is_wanted: impl Fn(&str) -> bool) -> Option<Position> {
    nth_line(text, 0, is_wanted)
}

/// Returns the position of a wanted line, counted from 0 among the wanted ones.
fn nth_line(text: &str, number: usize, is_wanted: impl Fn(&str) -> bool) -> Option<Position> {
    let (index, line) = text.lines().enumerate().filter(|(_, line)| is_wanted(line.trim_start())).nth(number)?;
    Some(Position { line: index + 1, column: line.len() - line.trim_start().len() + 1 })
}

fn at_byte(text: &str, byte: usize) -> Position {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    Position { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    #[test]
    fn every_error_has_its_place_in_the_file() {
        for (text, place) in [
            ("max_depth = 1\nmax_workers = many", (2, 15)),
            ("# a\n\n  max_worker = 6", (3, 3)),
            ("[boss]\nmax_tokens = 1\nmax_cost_usd = -1.0", (3, 1)),
            ("max_depth = 1\n[backends.codx]\nprogram = 'x'", (2, 1)),
            ("[[custom]]\nname = 'codex'\nprogram = 'x'", (2, 1)),
            (
                "[[custom]]\nname = 'a'\nprogram = 'x'\n[[custom]]\nname = 'ab'\nprogram = 'x'\n\
                 [[custom]]\n name = \"a\" # again\nprogram = 'x'",
                (8, 2),
            ),
            ("max_depth = 1\n[repositories.'/r']\n[repositories.'rel/x']\nsetup_command = 'x'", (3, 1)),
            ("\n stall_minutes = -1", (2, 2)),
            ("integration_branch=''", (1, 1)),
            ("max_depth = 1\ncommit_email = 'a@b'", (2, 1)),
            ("commit_message = '{titel}'", (1, 1)),
            ("prompt_frame = 'x'", (1, 1)),
            ("[profiles.a]\ntitle = 'x'", (2, 1)),
            ("[profiles.a]\nmax_attempts = 2\n[profiles.b]\n  max_attempts = 0", (4, 3)),
            ("[profiles.a]\nfallback_backends = ['codx']", (2, 1)),
            ("[profiles.\"a b\"]", (1, 1)),
            ("default_launcher = 'local'\nverify_on = 'x'", (2, 1)),
            ("[launchers.local]\nkind = 'slurm'", (1, 1)),
            ("max_depth = 1\n[launchers.a]\nkind = 'slurm'\n args = ['-J']", (4, 2)),
            ("[launchers.a]\nkind = 'slurm'\nprogram = 'x'", (3, 1)),
            ("[launchers.a]\nkind = 'slurm'\npoll_seconds = 1", (3, 1)),
            ("max_depth = 1\n[profiles.a]\nbackend = 'codex'\nmodel_override = 'sonnet'", (4, 1)),
        ] {
            let found = Settings::parse(text).unwrap_err().position(text);
            assert_eq!(found.map(|it| (it.line, it.column)), Some(place), "{text}");
        }
    }
}
