//! A stream in memory, and who brings a script what it wants.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use sluis_rules::{MetaFields, MetaValue, Metadata};
use sluis_script::{
    AddressOf, Answer, Begin, BodyIs, Call, CompileError, Edit, Effects, Facts, FieldsOf,
    HeaderRefused, Host, Level, Pairs, Response, Run, RunError, Script, Side, Step, Stream, Tls,
    TlsList, TlsText, Want,
};

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Continue,
    Respond(Response),
}

/// A message, and what became of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    pub(crate) list: Vec<(String, String)>,
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) metadata: Metadata,
    pub(crate) reason: String,
    /// The pieces of the body; none at all is no body.
    pub(crate) body: Option<Vec<Vec<u8>>>,
    pub(crate) is_tunnel: bool,
    pub(crate) trailers: Option<Pairs>,
    pub(crate) answers: VecDeque<Answer>,
    /// What has gone on of the body.
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) calls: Vec<Call>,
    pub(crate) effects: Effects,
    /// The list when the head went on.
    pub(crate) head_sent: Option<Vec<(String, String)>>,
}

impl Headers {
    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let found = self.list.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// All that has gone on of the body, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.sent.concat()).unwrap()
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
            Edit::Reason(phrase) => self.reason = text(phrase),
        }
        Ok(())
    }

    fn log(&mut self, level: Level, message: &str) {
        self.log.push((level, message.to_owned()));
    }

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

/// What the scripts of these tests may ask.
#[derive(Default)]
pub(crate) struct Known {
    fields: MetaFields,
    connection: Metadata,
}

impl Known {
    pub(crate) fn new() -> Rc<Self> {
        let inner =
            MetaFields::from([("deep".into(), MetaValue::List(vec![MetaValue::Bool(true)]))]);
        let fields = MetaFields::from([
            ("text".into(), MetaValue::text("a")),
            ("number".into(), MetaValue::Number(1.5)),
            ("nothing".into(), MetaValue::Null),
            ("fields".into(), MetaValue::fields(inner)),
        ]);
        let mut connection = Metadata::default();
        connection.set("istio_authn", "who", MetaValue::text("ada"));
        Rc::new(Self { fields, connection })
    }
}

impl Facts for Known {
    fn protocol(&self) -> &str {
        "HTTP/1.1"
    }

    fn route_name(&self) -> &str {
        "by-name"
    }

    fn server_name(&self) -> &str {
        "api.data.local"
    }

    fn address(&self, which: AddressOf) -> String {
        match which {
            AddressOf::Remote => "192.0.2.1:5".to_owned(),
            AddressOf::DirectRemote => "192.0.2.2:5".to_owned(),
            AddressOf::Local => "192.0.2.3:443".to_owned(),
            AddressOf::DirectLocal => "192.0.2.4:443".to_owned(),
        }
    }

    fn fields(&self, of: FieldsOf) -> Option<&MetaFields> {
        (of != FieldsOf::VirtualHost).then_some(&self.fields)
    }

    fn connection_metadata(&self) -> Option<&Metadata> {
        Some(&self.connection)
    }

    fn tls(&self) -> Option<&dyn Tls> {
        Some(self)
    }

    fn knows_cluster(&self, name: &str) -> bool {
        name == "service"
    }
}

impl Tls for Known {
    fn has_peer(&self) -> bool {
        false
    }

    fn text(&self, what: TlsText) -> String {
        format!("{what:?}")
    }

    fn list(&self, what: TlsList) -> Vec<String> {
        match what {
            TlsList::UriSanPeerCertificate => Vec::new(),
            other => vec![format!("{other:?}"), "second".to_owned()],
        }
    }

    fn validity(&self) -> (i64, i64) {
        (1, 2_000_000_000)
    }

    fn parsed_subject(&self) -> Option<(String, Vec<String>)> {
        Some(("name".to_owned(), vec!["o1".to_owned(), "o2".to_owned()]))
    }
}

/// A POST to `https://api.data.local/graphql?x=1` whose body comes in two pieces.
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
    let body = Some(vec![b"ab".to_vec(), b"c".to_vec()]);
    Headers { list, body, ..Headers::default() }
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

pub(crate) fn begin(side: Side, stream: &Headers) -> Begin {
    let body = match &stream.body {
        _ if stream.is_tunnel => BodyIs::Tunnel,
        Some(_) => BodyIs::Follows,
        None => BodyIs::Absent,
    };
    Begin { side, body, facts: Known::new() }
}

/// Lets a message pass the script, as the proxy does.
pub(crate) fn pass(script: &Script, side: Side, stream: &mut Headers) -> Result<Outcome, RunError> {
    let (run, step) = script.start(begin(side, stream), stream)?;
    let Some(mut run) = run else { return Ok(Outcome::Continue) };
    let mut step = step;
    // The head.
    let mut whole = None;
    loop {
        step = match step {
            Step::Respond(response) => return Ok(Outcome::Respond(response)),
            Step::Done | Step::Wants(Want::Chunk | Want::Trailers) => break,
            Step::Wants(Want::Body) => {
                let bytes = stream.body.clone().unwrap_or_default().concat();
                whole = Some(bytes.clone());
                run.body(bytes, stream.trailers.clone(), stream)?
            }
            Step::Wants(Want::Call(call)) => answer(&mut run, call, stream)?,
        };
    }
    stream.head_sent = Some(stream.list.clone());
    settle(&mut run, stream);
    if let Some(whole) = whole {
        stream.sent.push(run.take_changed().unwrap_or(whole));
        stream.trailers = run.take_trailers();
        return Ok(Outcome::Continue);
    }
    if let Some(changed) = run.take_changed() {
        stream.sent.push(changed);
    }
    let pieces = stream.body.clone().unwrap_or_default();
    let has_trailers = stream.trailers.is_some();
    for (index, piece) in pieces.iter().enumerate() {
        let ends = index + 1 == pieces.len() && !has_trailers;
        if !run.wants_chunks() {
            stream.sent.push(piece.clone());
            run.passed(ends);
            if ends && run.wants_trailers() {
                let step = run.end(None, stream)?;
                finish(&mut run, step, stream)?;
            }
            continue;
        }
        let step = run.chunk(piece.clone(), ends, stream)?;
        finish(&mut run, step, stream)?;
        stream.sent.push(run.take_chunk());
    }
    if has_trailers && !run.is_done() {
        let step = run.end(stream.trailers.clone(), stream)?;
        finish(&mut run, step, stream)?;
        stream.trailers = run.take_trailers();
    }
    Ok(Outcome::Continue)
}

fn finish(run: &mut Run, step: Step, stream: &mut Headers) -> Result<(), RunError> {
    let mut step = step;
    while let Step::Wants(Want::Call(call)) = step {
        step = answer(run, call, stream)?;
    }
    settle(run, stream);
    Ok(())
}

fn answer(run: &mut Run, call: Call, stream: &mut Headers) -> Result<Step, RunError> {
    stream.calls.push(call);
    let answer = stream.answers.pop_front().unwrap_or_else(Answer::failure);
    run.answer(&answer, stream)
}

fn settle(run: &mut Run, stream: &mut Headers) {
    stream.calls.extend(run.take_calls());
    let effects = run.take_effects();
    if effects != Effects::default() {
        stream.effects = effects;
    }
}

pub(crate) fn on_request(script: &Script, stream: &mut Headers) -> Result<Outcome, RunError> {
    pass(script, Side::Request, stream)
}

pub(crate) fn on_response(script: &Script, stream: &mut Headers) -> Result<Outcome, RunError> {
    pass(script, Side::Response, stream)
}

/// Runs the body of `envoy_on_request(h)` on a request.
pub(crate) fn run_on(body: &str, mut stream: Headers) -> (Result<Outcome, RunError>, Headers) {
    let script = compile(&format!("function envoy_on_request(h)\n{body}\nend")).unwrap();
    (on_request(&script, &mut stream), stream)
}

/// Runs the body of `envoy_on_request(h)` on [`request`].
pub(crate) fn run(body: &str) -> (Result<Outcome, RunError>, Headers) {
    run_on(body, request())
}

/// What the expression is, as a string.
#[track_caller]
pub(crate) fn eval(expression: &str) -> String {
    let (outcome, stream) = run(&format!("h:headers():replace('x', tostring({expression}))"));
    assert_eq!(outcome.unwrap(), Outcome::Continue, "{expression}");
    stream.all("x")[0].to_owned()
}

/// The message with which the body fails; the head is then as it was.
#[track_caller]
pub(crate) fn failure(body: &str) -> String {
    let (outcome, stream) = run(body);
    assert_eq!(stream.list, request().list, "{body}");
    outcome.expect_err(body).to_string()
}
