//! Compiles the .proto files that the `envoy-types` package ships into one descriptor set.
//!
//! In:    the package's source folder, found by asking cargo where it is.
//! Out:   `$OUT_DIR/envoy.descriptors`, a serialised `FileDescriptorSet`.
//! Never: copies a .proto file of Envoy's into this tree (`proto` has what is in no package), or reads
//!        the network.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use prost_types::FileDescriptorSet;
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};

/// The folders of the package that hold import roots.
const ROOTS: [&str; 6] = [
    "data-plane-api",
    "xds",
    "protoc-gen-validate",
    "googleapis",
    "opentelemetry-proto",
    "client_model",
];

/// The parts of Envoy's API that configuration can name.
const WANTED: [&str; 5] =
    ["envoy/config", "envoy/extensions", "envoy/type", "envoy/data", "envoy/service"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    let protos = package_folder("envoy-types").join("proto");
    let roots: Vec<PathBuf> = ROOTS
        .iter()
        .chain(&["cel-spec/proto", "cel-spec"])
        .map(|root| protos.join(root))
        .filter(|root| root.is_dir())
        .collect();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let roots: Vec<PathBuf> = roots.into_iter().chain([own.clone()]).collect();
    let api = protos.join("data-plane-api");
    let mut files = Vec::new();
    proto_files(&own, &mut files);
    for wanted in WANTED {
        proto_files(&api.join(wanted), &mut files);
    }
    files.sort();
    let set = compile(&files, roots)
        .unwrap_or_else(|error| panic!("the .proto files of envoy-types compile: {error:?}"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("envoy.descriptors"), set.encode_to_vec()).expect("OUT_DIR is writable");
}

/// Reads the .proto files, with relative type names made absolute where `protox` would take them
/// for another package: it resolves names against every loaded file, `protoc` against imports.
struct Absolute {
    roots: Vec<PathBuf>,
}

/// Makes each `config.…` and `common.…` type name absolute, by the package that the file imports.
fn absolute(mut source: String) -> String {
    let imported: Vec<String> = source
        .lines()
        .filter_map(|line| line.strip_prefix("import \"")?.rsplit_once('/'))
        .map(|(folder, _)| folder.replace('/', "."))
        .collect();
    for package in imported {
        for start in [".config.", ".common."] {
            if let Some(at) = package.rfind(start) {
                let relative = &package[at + 1..];
                source = source.replace(&format!(" {relative}."), &format!(" .{package}."));
            }
        }
    }
    source
}

impl FileResolver for Absolute {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        let inside = self.roots.iter().find_map(|root| path.strip_prefix(root).ok())?;
        inside.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let source = self.roots.iter().find_map(|root| fs::read_to_string(root.join(name)).ok());
        let source = source.ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, &absolute(source))
    }
}

/// Compiles the files and all that they import.
fn compile(files: &[PathBuf], roots: Vec<PathBuf>) -> Result<FileDescriptorSet, protox::Error> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Absolute { roots });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_files(files)?;
    Ok(compiler.file_descriptor_set())
}

/// Asks cargo for the folder of a package in this workspace's dependency graph.
fn package_folder(name: &str) -> PathBuf {
    // Without the network where that is enough: on a new machine, packages that only tests need may
    // not have been downloaded yet.
    let graph = metadata(&["--offline"]).or_else(|_| metadata(&[]));
    let graph = graph.unwrap_or_else(|error| panic!("cargo metadata: {error}"));
    graph["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == name)
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(Path::to_path_buf)
        .expect("the package is a dependency")
}

fn metadata(more: &[&str]) -> Result<serde_json::Value, String> {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let target = env::var_os("TARGET").expect("cargo sets TARGET");
    // The target filter leaves out packages of other platforms, which cargo has not downloaded.
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
        .arg(target)
        .args(more)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

fn proto_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            proto_files(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            files.push(path);
        }
    }
}
