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

async fn npx_runs_the_published_program(world: &World) {
    let registry = Registry::start(world);
    for package in packages(world) {
        let published = npm(world, "npm", &["publish", &package]);
        assert!(published.status.success(), "{package}: {published:?}");
    }
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

/// Runs `npm` or `npx` with the registry of this test, an empty home and an empty cache.
fn npm(world: &World, program: &str, arguments: &[&str]) -> Output {
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
            "storage: {storage:?}\nauth: {{ htpasswd: {{ file: {users:?} }} }}\nuplinks: {{}}\n\
             max_body_size: 100mb\npackages: {{ '**': {{ access: $all, publish: $all }} }}\nlog: {{ type: stdout, level: fatal }}\n",
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
