//! Reads `source` of a Credential.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::forms::{checked, read_fields};
use super::{exactly_one, is_entry};
use crate::kinds::credential_source::{
    ExecSource, FileSource, SecretRefSource, SecretSource, VaultAuth, VaultEngine, VaultSource,
};
use crate::value::{Fields, Read, Value};

read_fields! {
    SecretSource => source,
    SecretRefSource => secret_ref,
    FileSource => file,
    ExecSource => exec,
    VaultSource => vault,
    VaultAuth => vault_auth,
    AppRole => app_role,
    Kubernetes => kubernetes,
    Kv => kv,
    Transit => transit,
}

const SOURCES: [&str; 6] = ["secretRef", "file", "env", "exec", "vault", "sealed"];

/// How long a program may take, where nothing is written.
const EXEC_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest that a program may take.
const EXEC_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Where Kubernetes mounts the token of a service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The Secret of the Credential's own name, which is filled in later.
pub(super) fn default() -> SecretSource {
    SecretSource::SecretRef(SecretRefSource { name: String::new(), keys: BTreeMap::new() })
}

fn source(fields: &mut Fields<'_, '_>) -> Option<SecretSource> {
    let secret: Option<SecretRefSource> = fields.opt("secretRef");
    let file: Option<FileSource> = fields.opt("file");
    let env = fields.get("env").map(|value| names(&value, is_variable, "a variable's name"));
    let exec: Option<ExecSource> = fields.opt("exec");
    let vault: Option<VaultSource> = fields.opt("vault");
    let sealed = fields.get("sealed").map(|value| texts(&value));
    exactly_one(fields, &SOURCES);
    let secret = secret.map(SecretSource::SecretRef);
    let env = env.flatten().map(SecretSource::Env);
    let sealed = sealed.flatten().map(SecretSource::Sealed);
    secret
        .or(file.map(SecretSource::File))
        .or(env)
        .or(exec.map(SecretSource::Exec))
        .or(vault.map(|vault| SecretSource::Vault(Box::new(vault))))
        .or(sealed)
}

fn secret_ref(fields: &mut Fields<'_, '_>) -> Option<SecretRefSource> {
    let name = fields.or_default("name");
    if let Some(value) = fields.get("namespace")
        && value.read::<String>().is_some_and(|namespace| namespace != value.doc.namespace)
        && !value.is_described()
    {
        value.fault_help::<()>(
            "a Secret of another namespace is not read",
            "put the Credential where its Secret is, and let grants name it",
        );
    }
    Some(SecretRefSource { name, keys: keys(fields) })
}

fn file(fields: &mut Fields<'_, '_>) -> Option<FileSource> {
    let paths = fields.get("paths").and_then(|value| names(&value, is_path, "a path"));
    let directory: Option<Filled> = fields.opt("directory");
    let json: Option<Filled> = fields.opt("json");
    let keys = keys(fields);
    exactly_one(fields, &["paths", "directory", "json"]);
    if json.is_none() {
        fields.useless(&["keys"], "only a JSON file has members of other names");
    }
    paths
        .map(FileSource::Each)
        .or(directory.map(|Filled(path)| FileSource::Directory(path)))
        .or(json.map(|Filled(path)| FileSource::Json { path, keys }))
}

fn exec(fields: &mut Fields<'_, '_>) -> Option<ExecSource> {
    let command: Option<Vec<String>> = fields.req("command");
    if let Some(value) = fields.get("command")
        && !value.is_described()
        && !command.as_ref().is_some_and(|all| all.first().is_some_and(|it| it.starts_with('/')))
    {
        value.fault_help::<()>(
            "the program is named by an absolute path",
            "no shell is asked: write command: [/path/of/program, argument]",
        );
    }
    let timeout = fields.opt("timeout").unwrap_or(EXEC_TIMEOUT);
    if timeout > EXEC_TIMEOUT_MAX
        && let Some(value) = fields.get("timeout")
    {
        value.fault::<()>("a program may take a minute at most");
    }
    let environment = fields.or_default("env");
    Some(ExecSource { command: command?, environment, timeout, keys: keys(fields) })
}

fn vault(fields: &mut Fields<'_, '_>) -> Option<VaultSource> {
    let address = match fields.get("address") {
        Some(value) => checked(&value, vault_address),
        None => {
            fields.missing("address");
            None
        }
    };
    let namespace = fields.opt("namespace");
    let ca_certificates = fields.opt("caCertificates");
    let auth: Option<VaultAuth> = fields.req("auth");
    let kv = fields.opt("kv").map(|Kv(engine)| engine);
    let transit = fields.opt("transit").map(|Transit(engine)| engine);
    exactly_one(fields, &["kv", "transit"]);
    let engine = kv.or(transit);
    Some(VaultSource {
        address: address?,
        namespace,
        ca_certificates,
        auth: auth?,
        engine: engine?,
    })
}

/// A token goes there: plain text is for a server (or agent) of the same machine.
fn vault_address(text: &str) -> Result<String, String> {
    let host = |rest: &str| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        host.trim_matches(['[', ']']).to_owned()
    };
    let is_plain_local = text.strip_prefix("http://").is_some_and(|rest| {
        let ip = host(rest).parse::<std::net::IpAddr>();
        host(rest) == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    });
    let is_secure = text.strip_prefix("https://").is_some_and(|rest| !host(rest).is_empty());
    if is_plain_local || is_secure {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("{text:?} must begin with https://, or with http:// on loopback"))
}

fn vault_auth(fields: &mut Fields<'_, '_>) -> Option<VaultAuth> {
    let file = fields.opt("tokenFile").map(|Filled(path)| VaultAuth::TokenFile(path));
    let env = fields.opt("tokenEnv").map(|Filled(name)| VaultAuth::TokenEnv(name));
    let role = fields.opt("appRole").map(|AppRole(auth)| auth);
    let kubernetes = fields.opt("kubernetes").map(|Kubernetes(auth)| auth);
    exactly_one(fields, &["tokenFile", "tokenEnv", "appRole", "kubernetes"]);
    file.or(env).or(role).or(kubernetes)
}

struct AppRole(VaultAuth);

fn app_role(fields: &mut Fields<'_, '_>) -> Option<AppRole> {
    let mount = mount(fields, "approle");
    let role_id = fields.req("roleId").map(|Filled(text)| text);
    let file = fields.req("secretIdFile").map(|Filled(text)| text);
    Some(AppRole(VaultAuth::AppRole { mount, role_id: role_id?, secret_id_file: file? }))
}

struct Kubernetes(VaultAuth);

fn kubernetes(fields: &mut Fields<'_, '_>) -> Option<Kubernetes> {
    let mount = mount(fields, "kubernetes");
    let role = fields.req("role").map(|Filled(text)| text);
    let file = fields.opt("tokenFile").map_or_else(|| TOKEN_FILE.to_owned(), |Filled(path)| path);
    Some(Kubernetes(VaultAuth::Kubernetes { mount, role: role?, token_file: file }))
}

struct Kv(VaultEngine);

fn kv(fields: &mut Fields<'_, '_>) -> Option<Kv> {
    let mount = mount(fields, "secret");
    let path = fields.req("path").map(|Filled(path)| path);
    let keys = keys(fields);
    Some(Kv(VaultEngine::Kv { mount, path: path?, keys }))
}

struct Transit(VaultEngine);

fn transit(fields: &mut Fields<'_, '_>) -> Option<Transit> {
    let mount = mount(fields, "transit");
    let key = fields.req("key").map(|Filled(key)| key);
    if !fields.has("ciphertexts") {
        fields.missing("ciphertexts");
    }
    let ciphertexts = fields.get("ciphertexts").and_then(|value| texts(&value));
    Some(Transit(VaultEngine::Transit { mount, key: key?, ciphertexts: ciphertexts? }))
}

fn mount(fields: &mut Fields<'_, '_>, default: &str) -> String {
    fields.opt("mount").map_or_else(|| default.to_owned(), |Filled(mount)| mount)
}

/// A text that is not empty.
struct Filled(String);

impl Read for Filled {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| match text {
            "" => Err("an empty text is not allowed".to_owned()),
            text => Ok(Self(text.to_owned())),
        })
    }
}

/// `keys`: which of the source's entries is which of ours.
fn keys(fields: &mut Fields<'_, '_>) -> BTreeMap<String, String> {
    let value = fields.get("keys");
    value.and_then(|value| names(&value, |text| !text.is_empty(), "a name")).unwrap_or_default()
}

/// Texts by entry; their values are not shown in faults.
fn texts(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, value) in value.entries()? {
        if !value.is_text() || value.read::<Filled>().is_none() {
            value.fault_help::<()>("a text is expected", "write it in quotes")?;
        }
        let Filled(text) = value.read()?;
        all.insert(entry_name(name, &value)?, text.split_ascii_whitespace().collect());
    }
    some(all, value)
}

fn names(
    value: &Value<'_>,
    fits: fn(&str) -> bool,
    what: &str,
) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, value) in value.entries()? {
        let is_description = value.is_described();
        let text = checked(&value, |text| {
            let is_good = is_description || fits(text);
            is_good.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is not {what}"))
        })?;
        all.insert(entry_name(name, &value)?, text);
    }
    some(all, value)
}

fn some(all: BTreeMap<String, String>, value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    if all.is_empty() {
        return value.fault("at least one entry is expected here");
    }
    Some(all)
}

fn entry_name(name: &str, value: &Value<'_>) -> Option<String> {
    if value.is_described() || is_entry(name) {
        return Some(name.to_owned());
    }
    value.fault(format!(
        "{name:?} is not the name of an entry: letters, digits, '-', '_' and '.' are"
    ))
}

fn is_variable(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty() && text.bytes().all(fits) && !text.as_bytes()[0].is_ascii_digit()
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}
