//! The npm packages as users install them: published to a registry on this machine, run by `npx` from an empty home and
//! cache, and once more while the registry is away.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::real_cli::run_to_end;
use crate::wait::until;
use crate::world::{CEILING, World};

with_each_cli!(npx_runs_the_published_program: Claude);
with_each_cli!(npm_names_a_missing_platform: Claude);
with_each_cli!(registry_entry_is_valid: Claude);

async fn npx_runs_the_published_program(world: &World) {
    let registry = Registry::start(world);
    let packages = packages(world);
    let publish = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/publish");
        npm(world, script, &packages.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let published = publish();
    assert!(published.status.success(), "{published:?}");
    let again = publish();
    assert_eq!(text(&again.stdout).matches(": already published").count(), packages.len(), "{again:?}");
    let version = format!("orchestrator-boss {}", env!("CARGO_PKG_VERSION"));
    let npx = |options: &[&str], command: &[&str]| {
        let all: Vec<&str> = options.iter().chain(&["-y", "orchestrator-boss"]).chain(command).copied().collect();
        npm(world, "npx", &all)
    };
    let printed = npx(&["--ignore-scripts"], &["--version"]);
    assert!(text(&printed.stdout).starts_with(&version), "{printed:?}");

    let add = ["mcp", "add", "orchestrator-boss", "--", "npx", "-y", "orchestrator-boss"];
    assert!(claude(world, &add).status.success());
    let listed = claude(world, &["mcp", "list"]);
    assert!(text(&listed.stdout).contains("Connected"), "{listed:?}");

    // The plugin of this release starts it, too.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packed = npm(world, root.join(".ci/plugin"), &[&world.path("").display().to_string(), "published"]);
    let unpack = ["-xzf", text(&packed.stdout).trim(), "-C", &world.path("").display().to_string()].map(str::to_owned);
    assert!(Command::new("tar").args(unpack).status().expect("tar runs").success());
    let launcher = world.path("orchestrator-boss-plugin/.claude-plugin/launch.sh").display().to_string();
    let served = npm(world, "sh", &[&launcher, "serve"]);
    assert!(served.status.success(), "{served:?}");

    // The name and version of another content may be those of a stranger.
    let repacked = repack(world, &packages[0]);
    let refused = npm(world, Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/publish"), &[&repacked]);
    assert!(text(&refused.stderr).contains("it is published with other content"), "{refused:?}");

    drop(registry);
    let offline = npx(&["--offline"], &["--version"]);
    assert!(text(&offline.stdout).starts_with(&version), "{offline:?}");
    let demo = npx(&["--offline"], &["demo"]);
    assert!(demo.status.success(), "{demo:?}");
    // The exit status of the program is that of npx.
    assert_eq!(npx(&["--offline"], &["status", "w-99"]).status.code(), Some(2));
}

async fn npm_names_a_missing_platform(world: &World) {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join(".npm/run.js");
    // Here none of the platform packages is installed.
    let here = world.path("run.js");
    fs::copy(run, &here).expect("the launcher is there");
    let missing = world.home.command("node").arg(&here).output().expect("node runs");
    let said = text(&missing.stderr);
    assert!(said.starts_with("cannot start orchestrator-boss: the package orchestrator-boss-"), "{said}");
    assert_eq!(missing.status.code(), Some(1));

    let other = "Object.defineProperty(process, 'platform', {value: 'sunos'});";
    let script = format!("{other} require({here:?})");
    let unsupported = world.home.command("node").args(["-e", &script]).output().expect("node runs");
    let said = text(&unsupported.stderr);
    assert!(said.contains("there is no program for sunos-"), "{said}");
}

/// Checks the file for the MCP registry by the registry's schema.
async fn registry_entry_is_valid(world: &World) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pack = world.home.command(root.join(".ci/packages"));
    let packed = pack.arg(world.path("packages")).env("GITHUB_REPOSITORY", "someone/orchestrator-boss").output();
    assert!(packed.as_ref().is_ok_and(|it| it.status.success()), "{packed:?}");
    let script = "
        const ajv = new (require('ajv').default)({ strict: false });
        require('ajv-formats').default(ajv);
        const [schema, entry] = process.argv.slice(1).map((file) => JSON.parse(require('fs').readFileSync(file)));
        if (!ajv.validate(schema, entry)) throw new Error(ajv.errorsText());
        entry.packages[0].transport.type = 'none';
        if (ajv.validate(schema, entry)) throw new Error('the schema accepts anything');";
    let mut node = world.home.command("node");
    node.args(["-e", script]).current_dir(root.join("tests/real"));
    node.arg(root.join("tests/fixtures/mcp_registry/server.schema.json")).arg(world.path("packages/server.json"));
    let checked = node.output().expect("node runs");
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

/// Packs the files of a package again, with one more.
fn repack(world: &World, package: &str) -> String {
    let folder = world.path("repacked");
    fs::create_dir(&folder).expect("a new folder");
    let tar = |arguments: &[&str]| Command::new("tar").args(arguments).current_dir(&folder).status();
    assert!(tar(&["-xzf", package]).expect("tar runs").success());
    fs::write(folder.join("package/more"), "").expect("a new file");
    assert!(tar(&["-czf", "other.tgz", "package"]).expect("tar runs").success());
    folder.join("other.tgz").display().to_string()
}

/// Packs the program that is being tested. Returns the paths of the packages, in the order in which they are published.
fn packages(world: &World) -> Vec<String> {
    let target = format!(
        "{}-{}",
        std::env::consts::ARCH,
        if cfg!(target_os = "macos") { "apple-darwin" } else { "unknown-linux-gnu" }
    );
    let name = format!("orchestrator-boss-{}-{target}", env!("CARGO_PKG_VERSION"));
    let folder = world.path(&name);
    fs::create_dir(&folder).expect("a new folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("LICENSE"), folder.join("LICENSE")).expect("the licence is there");
    // With debug information it is ten times as large.
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(folder.join("orchestrator-boss")).arg(env!("CARGO_BIN_EXE_orchestrator-boss"));
    assert!(strip.status().expect("strip is part of the C compiler").success());
    let archive = format!("{name}.tar.gz");
    let tar = Command::new("tar").args(["-czf", &archive, &name]).current_dir(world.path("")).status();
    assert!(tar.expect("tar runs").success());
    let mut pack = world.home.command(root.join(".ci/packages"));
    let packed = pack.arg(world.path("packages")).arg(world.path(&archive)).output().expect("node runs");
    assert!(packed.status.success(), "{packed:?}");
    text(&packed.stdout).lines().map(str::to_owned).collect()
}

/// Runs `npm`, `npx` or a script that uses them, with the registry of this test, an empty home and an empty cache.
fn npm(world: &World, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let mut command = world.home.command(program);
    command.args(arguments).current_dir(world.repo());
    command.env("NPM_CONFIG_USERCONFIG", npmrc(world)).env("NPM_CONFIG_CACHE", world.path("npm-cache"));
    run_to_end(&mut command, "", CEILING)
}

fn claude(world: &World, arguments: &[&str]) -> Output {
    let mut command = world.home.command(world.cli.path());
    command.args(arguments).current_dir(world.repo());
    command.env("NPM_CONFIG_USERCONFIG", npmrc(world)).env("NPM_CONFIG_CACHE", world.path("npm-cache"));
    run_to_end(&mut command, "", CEILING)
}

fn npmrc(world: &World) -> PathBuf {
    world.path("npmrc")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A registry on 127.0.0.1. Dropping it ends it.
struct Registry(Child);

impl Registry {
    fn start(world: &World) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let settings = format!(
            "max_body_size: 200mb\nstorage: {storage:?}\nauth: {{ htpasswd: {{ file: {users:?} }} }}\nuplinks: {{}}\n\
             packages: {{ '**': {{ access: $all, publish: $all }} }}\nlog: {{ type: stdout, level: fatal }}\n",
            storage = world.path("registry"),
            users = world.path("registry-users"),
        );
        fs::write(world.path("registry.yaml"), settings).expect("a new file");
        // npm publishes only with a token, and this registry accepts any.
        let settings = format!("registry=http://{address}/\n//{address}/:_authToken=any\nfetch-retries=0\n");
        fs::write(npmrc(world), settings).expect("a new file");
        let mut registry = world.home.command("verdaccio");
        registry.arg("--config").arg(world.path("registry.yaml")).arg("--listen").arg(&address);
        let registry = registry.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("verdaccio is installed");
        let registry = Self(registry);
        until("the registry answers", || std::net::TcpStream::connect(&address).is_ok());
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
