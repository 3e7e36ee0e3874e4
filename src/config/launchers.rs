//! Launchers: named sizes of jobs on a cluster (`[launchers.NAME]`), which missions name as `run_on`. Whether a launcher
//! works is checked where it is used, since a cluster that is down must not make the other settings unreadable.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::error::{InvalidSettings, LauncherError, UnknownLauncher};
use super::fields::{self, FieldError, LINE, MAX_PROFILE_NAME, NAME};
use super::spelling;

/// The launcher that starts workers on the server's own machine. It has no section.
pub const LOCAL: &str = "local";

/// Options of `sbatch` that this program sets, that submit more than one job, or with which a job is not found again.
/// `sbatch` accepts every abbreviation of a long name.
const OWN_OPTIONS: [&str; 20] = [
    "--array",
    "--chdir",
    "--clusters",
    "--export",
    "--export-file",
    "--help",
    "--job-name",
    "--no-requeue",
    "--open-mode",
    "--output",
    "--parsable",
    "--requeue",
    "--signal",
    "--test-only",
    "--time",
    "--usage",
    "--version",
    "--wait",
    "--workdir",
    "--wrap",
];
/// The short forms of those options.
const OWN_LETTERS: [char; 8] = ['a', 'D', 'h', 'J', 'M', 'o', 't', 'W'];
/// Short options of `sbatch` without a value, so that another one can follow in the same argument.
const FLAG_LETTERS: [char; 6] = ['H', 'O', 'Q', 's', 'u', 'v'];
/// Comments in which `sbatch` looks for options.
const OPTION_COMMENTS: [&str; 3] = ["#SBATCH", "#PBS", "#BSUB"];

const FEWEST_POLL_SECONDS: u64 = 5;
const FEWEST_LOST_AFTER_SECONDS: u64 = 60;
const ONE_DAY: u64 = 24 * 60 * 60;
const MOST_CPUS: u64 = 65_535;
const MOST_JOBS: u64 = 100_000;

/// A launcher: jobs of one size on one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LauncherSettings {
    /// Scheduler of the cluster: `slurm`.
    pub kind: LauncherKind,
    /// Partition, as `sbatch` takes it. Default: that of the cluster.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub partition: Option<String>,
    /// Account, as `sbatch` takes it. Default: yours.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub account: Option<String>,
    /// Quality of service, as `sbatch` takes it. Default: that of the account.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub qos: Option<String>,
    /// Required features of the node, as `sbatch` takes them.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub constraint: Option<String>,
    /// Generic resources such as `gpu:1`, as `sbatch` takes them.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub gres: Option<String>,
    /// CPUs of one job. Default: that of the cluster.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_535))]
    pub cpus: Option<u64>,
    /// Memory of one job, such as `8G`. Without a unit: MB. Default: that of the cluster.
    #[serde(default)]
    #[schemars(extend("pattern" = "^[0-9]+([KkMmGgTt][Bb]?)?$"))]
    pub memory: Option<String>,
    /// More arguments of `sbatch`. Each is an option together with its value, such as `--exclude=n13`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Command that is put before each command of the scheduler, such as `["ssh", "login1"]` where only the shared
    /// folders are here. It must run a command that follows it.
    #[serde(default)]
    pub command: Vec<String>,
    /// Lines that the shell of the job runs first, such as `module load nodejs/22`.
    #[serde(default)]
    pub prologue: Vec<String>,
    /// Full path of this program on the nodes. Default: the path of the server's own program.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// Variables of the server's environment that workers get on a node too. They are in a private file until the job
    /// begins.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// Whether the keys that a backend needs are passed to the job too, in the same file. Otherwise a mission whose
    /// backend needs a key from the environment is refused, unless a login file exists or `pass_env` names the key.
    #[serde(default)]
    pub pass_keys: bool,
    /// Maximum number of jobs of this launcher in one state directory, waiting and running. Further workers wait in the
    /// queue of the server.
    #[serde(default = "max_jobs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_jobs: u64,
    /// Time between two queries of the scheduler. Each asks for all jobs of this state directory.
    #[serde(default = "poll_seconds")]
    #[schemars(range(min = 5, max = 86_400))]
    pub poll_seconds: u64,
    /// Time without a heartbeat after which a worker whose job has ended counts as lost.
    #[serde(default = "lost_after_seconds")]
    #[schemars(range(min = 60, max = 86_400))]
    pub lost_after_seconds: u64,
    /// Whether a worker whose node failed is retried by itself, if it has attempts left.
    #[serde(default)]
    pub retry_lost: bool,
}

/// The kind of a launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LauncherKind {
    Slurm,
}

fn max_jobs() -> u64 {
    50
}

fn poll_seconds() -> u64 {
    15
}

fn lost_after_seconds() -> u64 {
    120
}

impl Settings {
    /// Returns the names of all launchers, with `local` first.
    pub fn launcher_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(LOCAL).chain(self.launchers.keys().map(String::as_str))
    }

    /// Returns the launcher of this name. `None` for `local`.
    pub fn launcher(&self, name: &str) -> Result<Option<&LauncherSettings>, UnknownLauncher> {
        match self.launchers.get(name) {
            None if name != LOCAL => Err(UnknownLauncher {
                name: name.to_owned(),
                known: self.launcher_names().map(str::to_owned).collect(),
                meant: spelling::nearest(name, self.launcher_names()).map(str::to_owned),
            }),
            found => Ok(found),
        }
    }

    /// Checks the launchers, and the settings that name one.
    pub(super) fn check_launchers(&self) -> Result<(), InvalidSettings> {
        for (name, launcher) in &self.launchers {
            let invalid = |source| InvalidSettings::Launcher { name: name.clone(), source: Box::new(source) };
            check_name(name).and_then(|()| launcher.check()).map_err(invalid)?;
        }
        for (setting, name) in [("default_launcher", &self.default_launcher), ("verify_on", &self.verify_on)] {
            self.launcher(name).map_err(|unknown| InvalidSettings::NamedLauncher { setting, unknown })?;
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), LauncherError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match name {
        LOCAL => Err(LauncherError::Taken),
        _ if name.is_empty() || name.len() > MAX_PROFILE_NAME || !name.chars().all(is_plain) => {
            Err(LauncherError::Name)
        }
        _ => Ok(()),
    }
}

impl LauncherSettings {
    /// Returns the partition that `sbatch` uses: the last one that it is given. `None`: the default one.
    pub fn partition(&self) -> Option<&str> {
        let named = self.args.iter().rev().find_map(|argument| match argument.split_once('=') {
            // `sbatch` accepts every abbreviation that is unique.
            Some((option, value)) if option.starts_with("--part") && "--partition".starts_with(option) => Some(value),
            _ => argument.strip_prefix("-p").filter(|_| !argument.starts_with("--")).map(str::trim),
        });
        named.or(self.partition.as_deref())
    }

    fn check(&self) -> Result<(), LauncherError> {
        let texts = [
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("constraint", &self.constraint),
            ("gres", &self.gres),
        ];
        for (field, text) in texts {
            text.clone().map(|text| fields::line(field, text, NAME)).transpose()?;
        }
        self.cpus.map(|cpus| fields::range("cpus", cpus, 1, MOST_CPUS)).transpose()?;
        fields::range("max_jobs", self.max_jobs, 1, MOST_JOBS)?;
        fields::range("poll_seconds", self.poll_seconds, FEWEST_POLL_SECONDS, ONE_DAY)?;
        fields::range("lost_after_seconds", self.lost_after_seconds, FEWEST_LOST_AFTER_SECONDS, ONE_DAY)?;
        if let Some(memory) = self.memory.as_ref().filter(|memory| !is_size(memory)) {
            return Err(LauncherError::Memory(memory.clone()));
        }
        if let Some(program) = self.program.as_ref().filter(|program| !program.is_absolute()) {
            return Err(LauncherError::Program(program.clone()));
        }
        self.args.iter().try_for_each(|argument| check_argument(argument))?;
        self.command.iter().try_for_each(|part| fields::text("command", part.clone(), LINE).map(drop))?;
        self.prologue.iter().try_for_each(|lines| check_prologue(lines))?;
        match self.pass_env.iter().find(|name| !is_variable(name)) {
            Some(name) => Err(LauncherError::Variable(name.clone())),
            None => Ok(()),
        }
    }
}

/// Returns whether `sbatch` accepts a text as an amount of memory.
fn is_size(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let without_byte = lower.strip_suffix('b').filter(|rest| rest.ends_with(['k', 'm', 'g', 't'])).unwrap_or(&lower);
    let digits = without_byte.strip_suffix(['k', 'm', 'g', 't']).unwrap_or(without_byte);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn check_argument(argument: &str) -> Result<(), LauncherError> {
    fields::text("args", argument.to_owned(), LINE)?;
    let option = argument.split('=').next().unwrap_or_default();
    let is_own = match option.strip_prefix('-') {
        None | Some("") => return Err(LauncherError::NotAnOption(argument.to_owned())),
        Some(rest) if rest.starts_with('-') => OWN_OPTIONS.iter().any(|own| own.starts_with(option)),
        Some(letters) => letters.trim_start_matches(FLAG_LETTERS).starts_with(OWN_LETTERS),
    };
    if is_own { Err(LauncherError::OwnOption(argument.to_owned())) } else { Ok(()) }
}

fn check_prologue(lines: &str) -> Result<(), LauncherError> {
    if lines.contains('\0') {
        return Err(FieldError::Nul { field: "prologue" }.into());
    }
    match lines.lines().find(|line| OPTION_COMMENTS.iter().any(|comment| line.starts_with(comment))) {
        Some(line) => Err(LauncherError::OptionComment(line.to_owned())),
        None => Ok(()),
    }
}

fn is_variable(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(is_part) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::hint::with_hints;

    fn refused(text: &str) -> String {
        with_hints(&Settings::parse(&format!("[launchers.a]\nkind = 'slurm'\n{text}")).unwrap_err())
    }

    #[test]
    fn launcher_has_the_documented_defaults() {
        let settings = Settings::parse("[launchers.a]\nkind = 'slurm'").unwrap();
        let found = settings.launcher("a").unwrap().unwrap();
        assert_eq!((found.max_jobs, found.poll_seconds, found.lost_after_seconds), (50, 15, 120));
        assert!(!found.pass_keys && !found.retry_lost && found.command.is_empty());
        assert_eq!((settings.default_launcher.as_str(), settings.verify_on.as_str()), (LOCAL, LOCAL));
        assert_eq!(settings.launcher(LOCAL), Ok(None));
        assert_eq!(settings.launcher_names().collect::<Vec<_>>(), [LOCAL, "a"]);
    }

    #[test]
    fn complete_launcher_is_accepted() {
        let text = r#"
            default_launcher = "cluster"
            verify_on = "cluster"
            [launchers.cluster]
            kind = "slurm"
            partition = "cpu"
            account = "lab"
            qos = "normal"
            constraint = "intel&gpu|[rack1*2&rack2*4]"
            gres = "gpu:a100:2"
            cpus = 4
            memory = "8G"
            args = ["--exclude=n13", "-xn14", "--nodelist=n[1-3]", "--comment=a b", "--mem-per-cpu=1", "-vv", "--error=x"]
            command = ["ssh", "login1"]
            prologue = ["module load nodejs/22", "export HTTPS_PROXY=http://proxy:3128", "", " # SBATCH"]
            program = "/shared/bin/orchestrator-boss"
            pass_env = ["HTTPS_PROXY", "_x1"]
            pass_keys = true
            max_jobs = 1
            poll_seconds = 5
            lost_after_seconds = 60
            retry_lost = true
        "#;
        let settings = Settings::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(settings.launcher("cluster").unwrap().unwrap().memory.as_deref(), Some("8G"));
        for memory in ["1", "800M", "8GB", "8gb", "1t", "16k"] {
            assert!(
                Settings::parse(&format!("[launchers.a]\nkind = 'slurm'\nmemory = '{memory}'")).is_ok(),
                "{memory}"
            );
        }
    }

    #[test]
    fn own_options_are_refused_in_every_form() {
        for argument in [
            "--job-name=x",
            "--job=x",
            "-Jx",
            "--output=/x",
            "--out",
            "-o",
            "-o/x",
            "--export=NONE",
            "--exp=x",
            "--requeue",
            "--req",
            "--no-requeue",
            "--array=1-3",
            "-a1-3",
            "--wrap=x",
            "--wra=x",
            "--wait",
            "-W",
            "--parsable",
            "--signal=KILL@1",
            "--time=1",
            "--tim=1",
            "-t1",
            "--chdir=/",
            "-D/",
            "--workdir=/",
            "--open-mode=truncate",
            "--test-only",
            "--clusters=b",
            "-Mb",
            "-HJx",
            "-vvo/x",
            "--",
            "--help",
            "--version",
        ] {
            let error = refused(&format!("args = ['--exclude=n1', '{argument}']"));
            assert!(error.contains("which this program sets"), "{argument}: {error}");
        }
        for argument in ["x", "-", "/job.sh", " --exclude=n1", "="] {
            let error = refused(&format!("args = ['{argument}']"));
            assert!(error.contains("sbatch would run it as the job"), "{argument}: {error}");
        }
    }

    #[test]
    fn bad_value_is_refused_by_its_name() {
        for (text, said) in [
            ("partition = ''", "partition is empty"),
            ("qos = \"a\\nb\"", "qos contains the control character"),
            ("cpus = 0", "cpus is 0: it must be from 1 to 65535"),
            ("memory = '8 G'", "memory = \"8 G\" is not a size"),
            ("memory = '8P'", "such as 8G"),
            ("memory = 'G'", "is not a size"),
            ("memory = 'b'", "is not a size"),
            ("program = 'bin/x'", "program = \"bin/x\" is not a full path"),
            ("args = ['']", "args is empty"),
            ("args = [\"--comment=\\u0000\"]", "args contains a NUL character"),
            ("command = ['ssh', '']", "command is empty"),
            ("prologue = [\"a\\u0000\"]", "prologue contains a NUL character"),
            ("prologue = [\"a\\n#SBATCH --array=1-3\"]", "give the options in args"),
            ("pass_env = ['A=1']", "pass_env may not contain \"A=1\""),
            ("pass_env = ['']", "not the name of a variable"),
            ("pass_env = ['1A']", "not the name of a variable"),
            ("max_jobs = 0", "max_jobs is 0"),
            ("poll_seconds = 4", "poll_seconds is 4: it must be from 5 to"),
            ("lost_after_seconds = 59", "lost_after_seconds is 59: it must be from 60 to"),
            ("retry_lost = 'yes'", "expected true or false"),
            ("cores = 4", "there is no setting \"cores\" here"),
            ("max_job = 4", "did you mean max_jobs?"),
        ] {
            let error = refused(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        let unknown = Settings::parse("[launchers.a]\nkind = 'pbs'").unwrap_err().to_string();
        assert!(unknown.contains("unknown variant `pbs`, expected `slurm`"), "{unknown}");
        let missing = Settings::parse("[launchers.a]\ncpus = 4").unwrap_err().to_string();
        assert!(missing.contains("missing field `kind`"), "{missing}");
    }

    #[test]
    fn last_partition_counts() {
        for (text, expected) in [
            ("", None),
            ("partition = 'a'", Some("a")),
            ("partition = 'a'\nargs = ['--exclude=n1', '--partition=b']", Some("b")),
            ("args = ['--part=b', '-pc', '--power=x']", Some("c")),
            ("partition = 'a'\nargs = ['--prefer=x']", Some("a")),
        ] {
            let settings = Settings::parse(&format!("[launchers.a]\nkind = 'slurm'\n{text}")).unwrap();
            assert_eq!(settings.launchers["a"].partition(), expected, "{text}");
        }
    }

    #[test]
    fn name_of_a_launcher_is_checked() {
        let refused = |text: &str| with_hints(&Settings::parse(text).unwrap_err());
        assert!(refused("[launchers.local]\nkind = 'slurm'").contains("choose another name"));
        assert!(refused("[launchers.'a b']\nkind = 'slurm'").contains("only letters, digits"));
        assert_eq!(
            refused("default_launcher = 'clustr'\n[launchers.cluster]\nkind = 'slurm'"),
            "default_launcher = \"clustr\" is no launcher: there are only local, cluster; did you mean cluster?"
        );
        assert!(refused("verify_on = 'x'").contains("there are only local"));
    }
}
