//! Recognises daemons that a user shares with workers. The first program that needs such a daemon starts it, and others
//! then use it.
//!
//! If a name in the settings is known here, it stands for such a daemon as it appears in the process table. Otherwise
//! it stands for a program, or for the main class of a Java program. A client of a daemon does not count. Neither does
//! a daemon whose data lies in one of the worker's own places. This module does not end the processes that it
//! recognises.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::platform;
use super::record::ProcessRecord;

/// The places that belong to a worker alone.
#[derive(Clone, Debug, Default)]
pub struct WorkerPlaces {
    /// The worker's worktree, folder and sockets.
    pub places: Vec<PathBuf>,
    /// The worker's start, if it is known. A temporary path that was created later is the worker's own too.
    pub since: Option<SystemTime>,
}

impl WorkerPlaces {
    fn has(&self, path: &Path) -> bool {
        self.places.iter().any(|place| path.starts_with(place)) || self.is_new_and_temporary(path)
    }

    fn is_new_and_temporary(&self, path: &Path) -> bool {
        let temporary = [std::env::temp_dir(), "/tmp".into(), "/private/tmp".into()];
        let Some(inside) =
            temporary.iter().find_map(|folder| path.strip_prefix(folder).ok().map(|rest| (folder, rest)))
        else {
            return false;
        };
        // The topmost folder was created first, and was chosen for the data.
        let (folder, rest) = inside;
        let Some(first) = rest.components().next() else { return false };
        let made = std::fs::metadata(folder.join(first)).and_then(|metadata| metadata.created());
        made.ok().zip(self.since).is_some_and(|(made, since)| made >= since)
    }
}

/// One kind of daemon, by the name that the settings use.
struct DaemonKind {
    name: &'static str,
    matches: fn(&ProcessCommand) -> bool,
    /// The options and the variable that name the place of its data or its socket.
    folder: (&'static [&'static str], &'static str),
    /// True for a data server. One whose working directory lies in a place of the worker is the worker's. Only one in a
    /// session of its own is a daemon.
    keeps_data: bool,
}

/// A process as its command line describes it.
struct ProcessCommand<'a> {
    /// The system's short name.
    short: &'a str,
    words: &'a [String],
    /// True if it has a session of its own, as daemons do.
    has_own_session: bool,
}

const fn kind(name: &'static str, matches: fn(&ProcessCommand) -> bool) -> DaemonKind {
    DaemonKind { name, matches, folder: (&[], ""), keeps_data: false }
}

const fn kept_in(
    name: &'static str,
    options: &'static [&'static str],
    variable: &'static str,
    matches: fn(&ProcessCommand) -> bool,
) -> DaemonKind {
    DaemonKind { name, matches, folder: (options, variable), keeps_data: false }
}

const fn data(
    name: &'static str,
    options: &'static [&'static str],
    variable: &'static str,
    matches: fn(&ProcessCommand) -> bool,
) -> DaemonKind {
    DaemonKind { name, matches, folder: (options, variable), keeps_data: true }
}

const KINDS: &[DaemonKind] = &[
    // Builds.
    kind("sccache", |it| it.is("sccache") && !it.first_argument("sccache").is_some_and(names_a_program)),
    kind("gradle", |it| it.java(&["org.gradle.launcher.daemon.bootstrap.GradleDaemon"])),
    kind("kotlin", |it| it.java(&["org.jetbrains.kotlin.daemon.KotlinCompileDaemon"])),
    kind("mvnd", |it| it.java(&["org.mvndaemon.mvnd."])),
    kind("bazel", |it| it.titled("bazel(") || it.titled("blaze(") || it.any(|word| word.ends_with("/A-server.jar"))),
    kind("buck2d", |it| it.titled("buck2d") || it.short.starts_with("buck2d")),
    kind("buck", |it| it.java(&["com.facebook.buck."]) && it.any(|word| word.contains("Daemon"))),
    kind("pants", |it| it.titled("pantsd")),
    kind("sbt", |it| it.java(&[]) && it.has("--detach-stdio")),
    kind("bloop", |it| it.java(&["bloop.Bloop"]) || it.is("bloop-server")),
    kind("mill", |it| {
        it.java(&["mill."]) && it.any(|word| word.ends_with("ServerMain") || word.ends_with("DaemonMain"))
    }),
    kind("nailgun", |it| it.java(&["com.facebook.nailgun.NGServer", "com.martiansoftware.nailgun.NGServer"])),
    kind("nx", |it| it.script("/src/daemon/server/start.js") && it.any(|word| word.contains("/nx/"))),
    kind("turbo", |it| (it.is("turbo") || it.script("/turbo")) && it.has("daemon")),
    kind("dotnet", |it| {
        it.dotnet("MSBuild")
            && it.any(|word| word.trim_start_matches(['-', '/']).to_lowercase().starts_with("nodemode"))
            || it.dotnet("VBCSCompiler")
            || it.dotnet("rzc") && it.has("server")
    }),
    // The daemon forks from the first command that needs it, and keeps that command's arguments.
    kind("dmypy", |it| it.has_own_session && it.any(|word| word == "mypy.dmypy" || word.ends_with("/dmypy"))),
    kind("spring", |it| it.titled("spring server") || it.titled("spring app")),
    kind("eslint_d", |it| it.script("/eslint_d/lib/daemon.js") || it.titled("eslint_d")),
    kind("prettierd", |it| it.any(|word| word.contains("/prettierd/")) && it.script(".js")),
    kind("biome", |it| it.is("biome") && it.has("__run_server")),
    data("rubocop", &[], "", |it| it.titled("rubocop --server")),
    kind("flow", |it| it.is("flow") && it.has("server")),
    kind("gopls", |it| it.is("gopls") && it.any(|word| word.trim_start_matches('-').starts_with("listen"))),
    kind("lspmux", |it| (it.is("lspmux") || it.is("ra-multiplex")) && it.has("server")),
    kind("watchman", |it| it.is("watchman")),
    kind("distccd", |it| it.is("distccd")),
    kind("iceccd", |it| it.is("iceccd")),
    kind("reproxy", |it| it.is("reproxy")),
    kind("buildkitd", |it| it.is("buildkitd")),
    kind("nix-daemon", |it| it.is("nix-daemon")),
    kind("epmd", |it| it.is("epmd")),
    kept_in("pm2", &[], "PM2_HOME", |it| it.titled("PM2 ") && it.titled_with("God Daemon")),
    // Keys and logins.
    kept_in("gpg-agent", &["--homedir"], "GNUPGHOME", |it| it.is("gpg-agent")),
    kept_in("keyboxd", &["--homedir"], "GNUPGHOME", |it| it.is("keyboxd")),
    kept_in("dirmngr", &["--homedir"], "GNUPGHOME", |it| it.is("dirmngr")),
    kept_in("scdaemon", &["--homedir"], "GNUPGHOME", |it| it.is("scdaemon")),
    kept_in("ssh-agent", &["-a"], "", |it| it.is("ssh-agent")),
    kind("ssh", |it| it.titled("ssh:") && it.titled_with("[mux]")),
    kind("git-credential-cache", |it| it.is("git-credential-cache--daemon") || it.git("credential-cache--daemon")),
    kind("gnome-keyring", |it| it.is("gnome-keyring-daemon") || it.short.starts_with("gnome-keyring-d")),
    kind("kwallet", |it| it.is("kwalletd5") || it.is("kwalletd6")),
    kind("op", |it| it.is("op") && it.has("daemon")),
    // Terminals and desktops.
    kept_in("tmux", &["-S"], "TMUX_TMPDIR", |it| {
        it.short == "tmux: server" || it.is("tmux") && it.has_own_session && it.short != "tmux: client"
    }),
    kept_in("screen", &[], "SCREENDIR", |it| it.is("SCREEN")),
    kept_in("zellij", &["--server"], "ZELLIJ_SOCKET_DIR", |it| it.is("zellij") && it.has("--server")),
    kept_in("dtach", &["-n", "-c", "-A", "-N"], "", |it| it.is("dtach") && it.has_own_session),
    kept_in("abduco", &[], "ABDUCO_SOCKET_DIR", |it| it.is("abduco") && it.has_own_session),
    kind("mosh-server", |it| it.is("mosh-server")),
    kind("emacs", |it| {
        it.short.starts_with("emacs") && it.any(|word| word.starts_with("--") && word.contains("daemon"))
    }),
    kind("dbus-daemon", |it| it.is("dbus-daemon") && it.has("--fork")),
    kind("pulseaudio", |it| it.is("pulseaudio")),
    kind("pipewire", |it| it.is("pipewire") || it.is("wireplumber")),
    // Devices, machines and containers.
    kind("adb", |it| it.is("adb") && (it.has("fork-server") || it.has("nodaemon"))),
    kind("emulator", |it| (it.titled("emulator") || it.titled("qemu-system-")) && it.has("-avd")),
    kind("simulator", |it| {
        it.is("Simulator") || it.is("launchd_sim") || it.is("com.apple.CoreSimulator.CoreSimulatorService")
    }),
    kind("docker", |it| ["dockerd", "containerd", "rootlesskit"].iter().any(|name| it.is(name))),
    kind("containerd-shim", |it| it.titled("containerd-shim")),
    kind("podman", |it| it.is("catatonit") && it.has("-P") || it.is("podman") && it.has("service") || it.is("gvproxy")),
    kind("conmon", |it| it.is("conmon")),
    kind("virtualbox", |it| ["VBoxSVC", "VBoxXPCOMIPCD", "VBoxHeadless"].iter().any(|name| it.is(name))),
    kind("lima", |it| it.is("limactl") && it.has("hostagent") || it.is("colima") && it.has("daemon")),
    // Git.
    data("git-fsmonitor", &[], "", |it| it.git("fsmonitor--daemon")),
    // Servers for data, and models.
    data("postgres", &["-D"], "PGDATA", |it| it.is("postgres") || it.is("postmaster")),
    data("mysql", &["--datadir"], "", |it| it.is("mysqld") || it.is("mariadbd")),
    data("mongodb", &["--dbpath"], "", |it| it.is("mongod")),
    data("redis", &["--dir"], "", |it| it.is("redis-server") || it.is("valkey-server")),
    data("memcached", &[], "", |it| it.is("memcached")),
    data("etcd", &["--data-dir", "-data-dir"], "ETCD_DATA_DIR", |it| it.is("etcd")),
    // Synchronisation of files.
    kept_in("mutagen", &[], "MUTAGEN_DATA_DIRECTORY", |it| it.is("mutagen") && it.has("daemon") && it.has("run")),
    kept_in("syncthing", &["--home", "-home"], "STHOMEDIR", |it| {
        it.is("syncthing") && it.has_own_session && !it.has("cli")
    }),
    kind("ollama", |it| it.is("ollama") && it.has("serve")),
];

/// Returns the names that stand for more than a program of that name.
pub fn known_daemons() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name)
}

impl ProcessCommand<'_> {
    /// Returns whether this is the name by which the program was called, or the system's name for it.
    fn is(&self, name: &str) -> bool {
        self.called() == name || self.short == name
    }

    fn called(&self) -> &str {
        self.words.first().map_or("", |called| file_name(called))
    }

    /// Returns whether the title or the called name begins like this. Many daemons replace the called name with a
    /// title.
    fn titled(&self, beginning: &str) -> bool {
        let of_words = || beginning.contains(' ') && self.words.join(" ").starts_with(beginning);
        self.called().starts_with(beginning) || self.title().starts_with(beginning) || of_words()
    }

    fn titled_with(&self, words: &str) -> bool {
        self.words.join(" ").contains(words)
    }

    fn title(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Returns the word after the program's name, which may itself follow an interpreter.
    fn first_argument(&self, program: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| file_name(word) == program)?;
        self.words.get(at + 1).map(String::as_str)
    }

    fn rest(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    fn has(&self, wanted: &str) -> bool {
        self.any(|word| word == wanted)
    }

    fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        self.rest().iter().any(|word| is(word))
    }

    /// Returns whether this is a Java program with one of these main classes; any Java program if none is given.
    fn java(&self, main: &[&str]) -> bool {
        let is_main = |word: &str| main.is_empty() || main.iter().any(|class| word.starts_with(class));
        file_name(self.title()) == "java" && self.any(is_main)
    }

    /// Returns whether an interpreter runs a script whose path ends like this.
    fn script(&self, end: &str) -> bool {
        let interpreted = ["node", "bun", "deno"].contains(&self.called());
        let script = self.rest().iter().find(|word| !word.starts_with('-'));
        interpreted && script.is_some_and(|script| script.ends_with(end))
    }

    /// Returns whether `dotnet` runs this assembly, or a program has its name.
    fn dotnet(&self, assembly: &str) -> bool {
        let library = format!("{assembly}.dll");
        self.is(assembly) || self.is("dotnet") && self.any(|word| file_name(word) == library)
    }

    fn git(&self, command: &str) -> bool {
        self.is("git") && self.has(command) || self.called() == format!("git-{command}")
    }

    /// Returns the value of an option: `--name=VALUE`, `--name VALUE`, `-nVALUE`.
    fn option(&self, names: &[&str]) -> Option<PathBuf> {
        let value_of = |(at, word): (usize, &String)| {
            let name = names.iter().find(|name| word.starts_with(**name))?;
            match word[name.len()..].trim_start_matches('=') {
                "" => self.rest().get(at + 1).map(PathBuf::from),
                value if !name.starts_with("--") || word[name.len()..].starts_with('=') => Some(value.into()),
                _ => None,
            }
        };
        self.rest().iter().enumerate().find_map(value_of)
    }
}

impl DaemonKind {
    /// Returns whether it keeps its data, or listens, in a place of the worker.
    fn is_private(&self, program: &ProcessCommand, pid: u32, private: &WorkerPlaces) -> bool {
        let (options, variable) = self.folder;
        let from_environment =
            || platform::environment_value(pid, variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = program.option(options).or_else(|| (!variable.is_empty()).then(from_environment).flatten());
        let working = || platform::working_directory(pid);
        match named {
            Some(path) if path.is_absolute() => private.has(&path),
            Some(path) => working().is_some_and(|working| private.has(&working.join(path))),
            None => self.keeps_data && working().is_some_and(|working| private.has(&working)),
        }
    }
}

/// Returns the daemon's name if this process is one of the daemons in `names` and not the worker's own.
pub(super) fn shared_daemon(
    record: &ProcessRecord,
    has_own_session: bool,
    names: &[String],
    private: &WorkerPlaces,
) -> Option<String> {
    let arguments = platform::arguments(record.pid);
    let arguments: Vec<String> = arguments.into_iter().filter(|word| !word.is_empty()).collect();
    let is_named = |kind: &DaemonKind| names.iter().any(|name| name == kind.name);
    if let Some((kind, words)) =
        daemon_kind(&record.name, &arguments, has_own_session).filter(|(kind, _)| is_named(kind))
    {
        let program = ProcessCommand { short: &record.name, words: &words, has_own_session };
        return (!kind.is_private(&program, record.pid, private)).then(|| kind.name.to_owned());
    }
    let plain: Vec<&String> = names.iter().filter(|name| KINDS.iter().all(|kind| kind.name != **name)).collect();
    is_plainly_called(&plain, &record.name, &arguments).then(|| record.name.clone())
}

/// Returns the kind of a process, and its command line in the words that matched.
fn daemon_kind<'a>(
    short: &str,
    arguments: &'a [String],
    has_own_session: bool,
) -> Option<(&'static DaemonKind, Cow<'a, [String]>)> {
    let matching = |words: Cow<'a, [String]>| {
        let program = ProcessCommand { short, words: &words, has_own_session };
        let kind = KINDS.iter().find(|kind| (kind.matches)(&program) && (has_own_session || !kind.keeps_data))?;
        Some((kind, words))
    };
    // A title is one word with spaces in it; a path may have spaces too.
    let is_title = arguments.first().is_some_and(|title| title.contains(' '));
    let split = || arguments.iter().flat_map(|word| word.split(' ')).map(str::to_owned).collect();
    matching(Cow::Borrowed(arguments)).or_else(|| is_title.then(|| matching(Cow::Owned(split())))?)
}

/// Returns whether a name is the system's short name, the called name, or a Java program's main class.
fn is_plainly_called(names: &[&String], short: &str, arguments: &[String]) -> bool {
    let is_one = |name: &str| names.iter().any(|known| *known == name);
    let Some((called, rest)) = arguments.split_first() else { return is_one(short) };
    let program = file_name(called);
    let is_main_class = |word: &String| word.rsplit('.').next().is_some_and(is_one);
    is_one(short) || is_one(program) || (program == "java" && rest.iter().any(is_main_class))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns whether the word may name a program, as the compiler's name in a call of a wrapper does.
fn names_a_program(word: &str) -> bool {
    !word.starts_with('-') && word.contains(|character: char| character.is_alphabetic())
}

/// Returns whether the process's working directory lies in a place of the worker.
pub(super) fn works_in(pid: u32, private: &WorkerPlaces) -> bool {
    !private.places.is_empty()
        && platform::working_directory(pid)
            .is_some_and(|working| private.places.iter().any(|it| working.starts_with(it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Option<&'static str> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let short: String = file_name(&words[0]).chars().take(15).collect();
        daemon_kind(&short, &words, true).map(|(kind, _)| kind.name)
    }

    /// Checks command lines as they appear in the process table.
    #[test]
    fn daemons_are_recognised_by_command_line() {
        for (name, line) in [
            ("sccache", "/usr/local/bin/sccache"),
            ("sccache", "sccache --start-server"),
            ("watchman", "/usr/bin/watchman --foreground --logfile=/home/u/.local/state/watchman/u-state/log"),
            (
                "gradle",
                "/opt/jdk/bin/java -XX:MaxMetaspaceSize=384m -cp /home/u/.gradle/wrapper/dists/gradle-8.10/lib/gradle-daemon-main-8.10.jar org.gradle.launcher.daemon.bootstrap.GradleDaemon 8.10",
            ),
            (
                "kotlin",
                "/opt/jdk/bin/java -cp /home/u/kotlin-compiler-embeddable-2.0.jar -Djava.awt.headless=true org.jetbrains.kotlin.daemon.KotlinCompileDaemon --daemon-runFilesPath /home/u/.kotlin/daemon",
            ),
            ("mvnd", "java -Dmvnd.home=/opt/mvnd org.mvndaemon.mvnd.common.MavenDaemon"),
            (
                "bazel",
                "bazel(app) --add-opens=java.base/java.nio=ALL-UNNAMED -jar /home/u/.cache/bazel/_bazel_u/install/ab/A-server.jar --max_idle_secs=10800",
            ),
            ("bazel", "/opt/jdk/bin/java -jar /home/u/.cache/bazel/_bazel_u/install/ab/A-server.jar"),
            ("buck2d", "buck2d[app] --isolation-dir v2 daemon"),
            ("pants", "pantsd [app]"),
            ("sbt", "java -jar /home/u/.cache/sbt/boot/sbt-launch.jar --detach-stdio"),
            ("bloop", "java -Xss4m bloop.BloopServer daemon:/home/u/.bloop"),
            ("mill", "java -cp /home/u/mill.jar mill.runner.MillServerMain /w/out/mill-server/1"),
            ("nx", "/usr/bin/node /w/node_modules/nx/src/daemon/server/start.js"),
            ("nx", "node --no-warnings /w/node_modules/nx/dist/src/daemon/server/start.js"),
            ("turbo", "/w/node_modules/turbo-linux-64/bin/turbo --skip-infer daemon"),
            (
                "dotnet",
                "/usr/share/dotnet/dotnet /usr/share/dotnet/sdk/8.0.1/MSBuild.dll /nologo /nodemode:1 /nodeReuse:true",
            ),
            (
                "dotnet",
                "/usr/share/dotnet/dotnet exec /usr/share/dotnet/sdk/8.0.1/Roslyn/bincore/VBCSCompiler.dll -pipename:x",
            ),
            ("dotnet", "/usr/share/dotnet/sdk/9.0.1/Roslyn/bincore/VBCSCompiler -pipename:x"),
            ("dmypy", "/usr/bin/python3 -m mypy.dmypy --status-file .dmypy.json daemon"),
            ("spring", "spring server | app | started 5 mins ago"),
            ("biome", "/w/node_modules/@biomejs/cli/biome __run_server"),
            ("gopls", "/go/bin/gopls serve -listen unix;/tmp/gopls -listen.timeout=1m0s"),
            ("epmd", "/usr/lib/erlang/erts-13/bin/epmd -daemon"),
            ("pm2", "PM2 v5.3.0: God Daemon (/home/u/.pm2)"),
            ("gpg-agent", "gpg-agent --homedir /home/u/.gnupg --use-standard-socket --daemon"),
            ("keyboxd", "keyboxd --homedir /home/u/.gnupg --daemon"),
            ("dirmngr", "dirmngr --daemon --homedir /home/u/.gnupg"),
            ("ssh-agent", "ssh-agent -s"),
            ("ssh", "ssh: /home/u/.ssh/cm-git@example.org:22 [mux]"),
            ("git-credential-cache", "git credential-cache--daemon /home/u/.cache/git/credential/socket"),
            ("tmux", "tmux new-session -d -s work"),
            ("screen", "SCREEN -dmS work"),
            ("zellij", "/usr/bin/zellij --server /run/user/1000/zellij/0.40.1/work"),
            ("dtach", "dtach -n d/sock sleep 60"),
            ("abduco", "abduco -n work make"),
            ("mosh-server", "mosh-server new -p 61000:61010"),
            ("rubocop", "rubocop --server /home/u/app"),
            ("conmon", "/usr/bin/conmon --api-version 1 -c 1f0a -u 1f0a -r /usr/bin/crun"),
            ("virtualbox", "/usr/lib/virtualbox/VBoxSVC --auto-shutdown"),
            ("virtualbox", "/usr/lib/virtualbox/VBoxHeadless --comment vm --startvm 5b --vrde config"),
            ("etcd", "etcd --data-dir d/etcd"),
            ("mutagen", "/opt/mutagen/mutagen daemon run"),
            ("syncthing", "syncthing --no-browser --home=d/st"),
            ("emacs", "emacs --daemon"),
            ("dbus-daemon", "/usr/bin/dbus-daemon --syslog-only --fork --print-pid 5 --print-address 7 --session"),
            ("adb", "adb -L tcp:5037 fork-server server --reply-fd 4"),
            ("emulator", "/opt/android/emulator/qemu/linux-x86_64/qemu-system-x86_64 -avd Pixel"),
            ("podman", "catatonit -P"),
            ("lima", "/usr/local/bin/limactl hostagent --pidfile /home/u/.lima/x/ha.pid x"),
            ("git-fsmonitor", "git fsmonitor--daemon run --detach --ipc-threads=8"),
            ("postgres", "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main"),
            ("redis", "redis-server *:6379"),
            ("mysql", "/usr/sbin/mysqld --datadir=/var/lib/mysql"),
            ("ollama", "ollama serve"),
        ] {
            assert_eq!(named(line), Some(name), "{line}");
        }
    }

    #[test]
    fn clients_and_similar_names_are_no_daemons() {
        for line in [
            "vim sccache",
            "sh -c sccache",
            "/usr/bin/sccache-dist",
            "/home/sccache/tool",
            "sccache /usr/bin/cc -c a.c",
            "bazel build //...",
            "/bin/sh gradle build",
            "java -jar gradle-wrapper.jar org.gradle.wrapper.GradleWrapperMain build",
            "grep -r org.gradle.launcher.daemon.bootstrap.GradleDaemon",
            "node /w/node_modules/nx/bin/nx.js build",
            "turbo run build",
            "adb shell",
            "dotnet build",
            "tail -f /home/u/.gnupg/gpg-agent",
            "redis-cli",
            "screen -r",
            "node server.js",
            "git status",
        ] {
            assert_eq!(named(line), None, "{line}");
        }
        let words = ["redis-server".to_owned()];
        assert!(daemon_kind("redis-server", &words, false).is_none(), "a server in the worker's session is no daemon");
    }

    #[test]
    fn title_is_split_into_words() {
        let title = ["java -Xmx64m org.gradle.launcher.daemon.bootstrap.GradleDaemon 8.5".to_owned(), "300".to_owned()];
        assert_eq!(daemon_kind("sleep", &title, false).map(|(kind, _)| kind.name), Some("gradle"));
    }

    #[test]
    fn daemon_with_data_in_worker_places_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let private = WorkerPlaces { places: vec!["/w/tree".into()], since: None };
        let own = |line: &str, private: &WorkerPlaces| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (kind, _) = daemon_kind(file_name(&words[0]), &words, true).unwrap();
            kind.is_private(
                &ProcessCommand { short: "", words: &words, has_own_session: true },
                std::process::id(),
                private,
            )
        };
        assert!(own("postgres -D /w/tree/data", &private));
        assert!(own("postgres -D/w/tree/data", &private));
        assert!(!own("postgres -D /w/tree-of-another/data", &private));
        assert!(own("gpg-agent --homedir=/w/tree/keys --daemon", &private));
        assert!(!own("gpg-agent --homedir /home/u/.gnupg --daemon", &private));
        assert!(own("tmux -S /w/tree/socket new -d", &private));
        let here = WorkerPlaces { places: vec![std::env::current_dir().unwrap()], since: None };
        assert!(own("redis-server *:6379", &here), "by its working directory");
        assert!(own("postgres -D data", &here));
        assert!(!own("postgres -D /var/data", &here));

        let line = format!("gpg-agent --homedir {} --daemon", folder.path().join("keys").display());
        let since = std::fs::metadata(folder.path()).and_then(|it| it.created());
        if let Ok(since) = since {
            assert!(own(&line, &WorkerPlaces { places: Vec::new(), since: Some(since) }), "made by the worker");
            let later = since + std::time::Duration::from_secs(1);
            assert!(!own(&line, &WorkerPlaces { places: Vec::new(), since: Some(later) }), "made before the worker");
        }
    }

    #[test]
    fn unknown_names_match_programs_and_main_classes() {
        let names = ["mydaemon".to_owned(), "MyDaemon".to_owned()];
        let names: Vec<&String> = names.iter().collect();
        let called = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            is_plainly_called(&names, "short", &words)
        };
        assert!(called("/opt/mydaemon --x") && called("java -cp x org.example.MyDaemon"));
        assert!(!called("vim mydaemon") && !called("node org.example.MyDaemon"));
    }
}
