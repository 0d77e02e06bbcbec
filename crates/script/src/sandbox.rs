//! A Lua state that holds only what a script may use.

use std::{collections::HashMap, fs, io::Read, path::Path, rc::Rc, sync::Arc};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use mlua::{Lua, LuaOptions, LuaString, StdLib, Table};

use crate::{Level, methods, worker::Current};

/// What a script may use of the process it runs in.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Where `require` looks: paths with a `?` for the module's name (`/etc/lua/?.lua`), in which
    /// its dots are slashes.
    pub package_paths: Vec<String>,
    /// The variables that `os.getenv` knows. Values are not printed.
    pub environment: Arc<HashMap<String, String>>,
}

/// Bytes that a module may have: several times the largest known ones.
const MODULE_BYTES_MAX: u64 = 4 << 20;

/// Makes a state: libraries, then the sandbox's own Lua.
pub(crate) fn state(host: &Host, current: &Current) -> mlua::Result<Lua> {
    let libraries = StdLib::TABLE
        | StdLib::IO
        | StdLib::OS
        | StdLib::STRING
        | StdLib::BIT
        | StdLib::MATH
        | StdLib::JIT;
    let lua = Lua::new_with(libraries, LuaOptions::default())?;
    let environment = Arc::clone(&host.environment);
    let getenv = lua.create_function(move |_, name: String| Ok(environment.get(&name).cloned()))?;
    let lines = Rc::clone(current);
    let print = lua.create_function(move |_, line: LuaString| {
        // What is printed while the script is loaded belongs to no stream.
        if let Some(exchange) = &*lines.borrow() {
            exchange.borrow_mut().log(Level::Info, &line.as_bytes());
        }
        Ok(())
    })?;
    let paths = host.package_paths.clone();
    let module = lua.create_function(move |lua, name: LuaString| {
        Ok(match find_module(&paths, &name.to_string_lossy()) {
            Ok((source, place)) => (Some(lua.create_string(source)?), place),
            Err(tried) => (None, tried),
        })
    })?;
    let sha256 = lua.create_function(|_, text: LuaString| {
        Ok(hex(digest(&SHA256, &text.as_bytes()).as_ref()))
    })?;
    let hmac_sha256 = lua.create_function(|_, (key, text): (LuaString, LuaString)| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key.as_bytes());
        Ok(hex(hmac::sign(&key, &text.as_bytes()).as_ref()))
    })?;
    let table = lua.create_table()?;
    table.set("sha256", sha256)?;
    table.set("hmac_sha256", hmac_sha256)?;
    table.set("getenv", getenv)?;
    table.set("print", print)?;
    table.set("module", module)?;
    table.set("path", host.package_paths.join(";"))?;
    methods::waiting(&lua, &table)?;
    let chunk = lua.load(include_str!("sandbox.lua")).set_name("=sandbox");
    lua.set_named_registry_value(methods::WAITING, chunk.call::<Table>(table)?)?;
    Ok(lua)
}

/// The source of a module and its path, or a line for each place where it is not.
fn find_module(paths: &[String], name: &str) -> Result<(Vec<u8>, String), String> {
    // A name is a path below the roots: letters, digits, `_` and `-`, parts joined by dots.
    let valid = name.split('.').all(|part| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    });
    if !valid {
        return Err("\n\tnot a module name".to_owned());
    }
    let mut tried = String::new();
    for path in paths {
        let file = path.replace('?', &name.replace('.', "/"));
        match read(Path::new(&file)) {
            Ok(source) => return Ok((source, file)),
            Err(error) => tried.push_str(&format!("\n\t{file}: {error}")),
        }
    }
    if tried.is_empty() {
        tried.push_str("\n\tthere is no directory for modules");
    }
    Err(tried)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut source = Vec::new();
    fs::File::open(path)?.take(MODULE_BYTES_MAX + 1).read_to_end(&mut source)?;
    if source.len() as u64 > MODULE_BYTES_MAX {
        return Err(std::io::Error::other("larger than 4 MiB"));
    }
    Ok(source)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}
