//! A stream in memory.

use std::sync::Arc;

use sluis_script::{
    CompileError, Edit, Facts, HeaderRefused, Host, Level, Outcome, RunError, Script, Stream,
};

/// Headers, and what was logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    pub(crate) list: Vec<(String, String)>,
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) facts: Facts,
}

impl Headers {
    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let found = self.list.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }
}

impl Stream for Headers {
    fn headers(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in &self.list {
            each(name.as_bytes(), value.as_bytes());
        }
    }

    fn apply(&mut self, edit: Edit<'_>) -> Result<(), HeaderRefused> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match edit {
            Edit::Add { name, value } => {
                if name == b"transfer-encoding" {
                    let name = text(name);
                    return Err(HeaderRefused { name, reason: "frames the message" });
                }
                self.list.push((text(name), text(value)));
            }
            Edit::Replace { name, value } => {
                let name = text(name);
                self.list.retain(|(key, _)| !key.eq_ignore_ascii_case(&name));
                self.list.push((name, text(value)));
            }
            Edit::Remove { name } => {
                let name = text(name);
                self.list.retain(|(key, _)| !key.eq_ignore_ascii_case(&name));
            }
        }
        Ok(())
    }

    fn log(&mut self, level: Level, message: &str) {
        self.log.push((level, message.to_owned()));
    }

    fn facts(&self, facts: &mut Facts) {
        facts.clone_from(&self.facts);
    }
}

/// A POST to `https://api.data.local/graphql?x=1`.
pub(crate) fn request() -> Headers {
    let list = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "api.data.local"),
        (":path", "/graphql?x=1"),
        ("Accept", "a/b"),
        ("accept", "c/d"),
        ("content-length", "3"),
    ];
    let list = list.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let facts = Facts { protocol: "HTTP/1.1", is_tls: true, ..Facts::default() };
    Headers { list, log: Vec::new(), facts }
}

/// The directory of our own module, and some variables.
pub(crate) fn host() -> Host {
    let lua = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/credential-egress/lua/?.lua");
    let variables = [("ACCESS_KEY", "AK"), ("SECRET_KEY", "sesame")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Host { package_paths: vec![lua.to_owned()], environment: Arc::new(variables.into()) }
}

pub(crate) fn compile(source: &str) -> Result<Script, CompileError> {
    Script::compile(source, "test", &host())
}

/// Runs the body of `envoy_on_request(h)` on [`request`].
pub(crate) fn run(body: &str) -> (Result<Outcome, RunError>, Headers) {
    let script = compile(&format!("function envoy_on_request(h)\n{body}\nend")).unwrap();
    let mut stream = request();
    (script.on_request(&mut stream), stream)
}

/// What the expression is, as a string.
#[track_caller]
pub(crate) fn eval(expression: &str) -> String {
    let (outcome, stream) = run(&format!("h:headers():replace('x', tostring({expression}))"));
    assert_eq!(outcome.unwrap(), Outcome::Continue, "{expression}");
    stream.all("x")[0].to_owned()
}

/// The message with which the body fails; the stream is then as it was.
#[track_caller]
pub(crate) fn failure(body: &str) -> String {
    let (outcome, stream) = run(body);
    assert_eq!(stream.list, request().list, "{body}");
    outcome.expect_err(body).to_string()
}
