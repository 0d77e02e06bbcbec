//! What the authorization service has said, and what that does to heads.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction},
        service::auth::v3::{
            CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse,
        },
    },
    google::protobuf::BoolValue,
};
use sluis_http1::{FieldError, Fields, RequestHead};
use sluis_rules::{AuthzHttp, MetaFields, MetaValue, StringMatcher};

use crate::http::{
    authz,
    change::{Change, How},
    question::Answer,
};

/// Names headers that an HTTP service wants removed from the request.
const REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// Headers of a denial that the client always gets (Envoy's list).
const CLIENT: [&str; 2] = ["www-authenticate", "location"];

/// A verdict.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// What is to be known of the request from here on.
    pub(super) metadata: MetaFields,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The request may go on, changed so.
    Yes(Changes),
    /// It is answered so.
    No(Denial),
    /// The service has failed; what it wants to be answered then, if anything.
    Failed(Option<Denial>),
}

/// What is changed of a request and its response.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) request: Vec<Change>,
    pub(super) remove: Vec<String>,
    pub(super) query_set: Vec<(String, String)>,
    pub(super) query_remove: Vec<String>,
    pub(super) response: Vec<Change>,
}

impl Changes {
    /// Whether the route may be another one now.
    pub(super) fn concerns_route(&self) -> bool {
        !self.request.is_empty()
            || !self.remove.is_empty()
            || !self.query_set.is_empty()
            || !self.query_remove.is_empty()
    }
}

/// An answer in the place of the request's own.
#[derive(Debug)]
pub(super) struct Denial {
    /// 0 where the service says none.
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) headers: Vec<Change>,
}

/// Whether a header says where a message ends or how long its connection lives: that is for us to
/// say, whatever a service wants.
pub(super) fn is_frame(name: &[u8]) -> bool {
    const FRAME: [&[u8]; 9] = [
        b"connection",
        b"content-length",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    FRAME.contains(&name)
}

/// Reads the answer of a gRPC service.
pub(super) fn of_grpc(answer: CheckResponse) -> Verdict {
    let CheckResponse { status, dynamic_metadata, http_response } = answer;
    let is_yes = status.is_none_or(|status| status.code == 0);
    let mut metadata = dynamic_metadata.as_ref().map(authz::heard).unwrap_or_default();
    let outcome = match (is_yes, http_response) {
        (true, Some(HttpResponse::OkResponse(ok))) => {
            #[expect(deprecated, reason = "it still counts, before the newer one")]
            if let Some(own) = &ok.dynamic_metadata {
                metadata = authz::heard(own);
            }
            Outcome::Yes(changes(ok))
        }
        (true, _) => Outcome::Yes(Changes::default()),
        (false, Some(HttpResponse::ErrorResponse(error))) => {
            Outcome::Failed(Some(denial(error, 0)))
        }
        (false, Some(HttpResponse::DeniedResponse(denied))) => Outcome::No(denial(denied, 403)),
        (false, _) => Outcome::No(Denial { status: 403, body: Vec::new(), headers: Vec::new() }),
    };
    Verdict { outcome, metadata }
}

fn changes(ok: OkHttpResponse) -> Changes {
    let set = ok.query_parameters_to_set.into_iter().map(|one| (one.key, one.value));
    Changes {
        // As in Envoy 1.40: of `append_action` nothing counts towards the endpoint.
        request: ok.headers.into_iter().filter_map(set_or_join).collect(),
        remove: ok.headers_to_remove,
        query_set: set.collect(),
        query_remove: ok.query_parameters_to_remove,
        response: mutations(ok.response_headers_to_add),
    }
}

fn denial(denied: DeniedHttpResponse, by_default: u16) -> Denial {
    let code = denied.status.map_or(0, |status| status.code);
    Denial {
        // What is no status makes the answer invalid.
        status: if code == 0 { by_default } else { u16::try_from(code).unwrap_or(1) },
        body: denied.body.into_bytes(),
        headers: mutations(denied.headers),
    }
}

fn mutations(options: Vec<HeaderValueOption>) -> Vec<Change> {
    options.into_iter().filter_map(mutation).collect()
}

#[expect(deprecated, reason = "`append` is what most services say")]
fn mutation(option: HeaderValueOption) -> Option<Change> {
    let header = option.header?;
    let how = match (option.append, HeaderAppendAction::try_from(option.append_action)) {
        (Some(BoolValue { value: true }), _) => How::Join,
        (Some(BoolValue { value: false }), _) | (None, Err(_)) => How::Set,
        (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => How::Set,
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => How::Add,
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => How::AddIfAbsent,
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => How::SetIfThere,
    };
    let value = match header.raw_value.is_empty() {
        true => header.value.into_bytes(),
        false => header.raw_value,
    };
    Some(Change { name: header.key.to_ascii_lowercase(), value, how })
}

fn set_or_join(option: HeaderValueOption) -> Option<Change> {
    let change = mutation(option)?;
    let how = if change.how == How::Join { How::Join } else { How::Set };
    Some(Change { how, ..change })
}

/// Reads the answer of an HTTP service: 200 is a yes, 5xx is its failure.
pub(super) fn of_http(service: &AuthzHttp, answer: Answer) -> Verdict {
    let mut metadata = MetaFields::new();
    let is_one_of =
        |list: &[StringMatcher], name: &str| list.iter().any(|one| one.matches(name.as_bytes()));
    let outcome = match answer.status {
        500..=599 => Outcome::Failed(None),
        200 => {
            let mut changes = Changes::default();
            for (name, value) in &answer.headers {
                let name = name.as_str();
                let change =
                    |how| Change { name: name.to_owned(), value: value.as_bytes().to_vec(), how };
                if name == REMOVE {
                    let names = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    let names = names.split(',').map(|name| name.trim().to_ascii_lowercase());
                    changes.remove.extend(names.filter(|name| !name.is_empty()));
                    continue;
                }
                if is_one_of(&service.upstream_append, name) {
                    changes.request.push(change(How::Add));
                } else if is_one_of(&service.upstream, name) {
                    // As in Envoy: the last of several values stays.
                    changes.request.push(change(How::Set));
                }
                if is_one_of(&service.client_on_success, name) {
                    changes.response.push(change(How::Add));
                }
                if is_one_of(&service.metadata, name) {
                    let text = String::from_utf8_lossy(value.as_bytes());
                    metadata.insert(name.into(), MetaValue::text(&text));
                }
            }
            Outcome::Yes(changes)
        }
        status => {
            let passes = |name: &str| match &service.client {
                None => true,
                Some(list) => CLIENT.contains(&name) || is_one_of(list, name),
            };
            let headers = answer.headers.iter().filter(|(name, _)| passes(name.as_str()));
            let headers = headers.map(|(name, value)| Change {
                name: name.as_str().to_owned(),
                value: value.as_bytes().to_vec(),
                how: How::Add,
            });
            Outcome::No(Denial { status, headers: headers.collect(), body: answer.body })
        }
    };
    Verdict { outcome, metadata }
}

/// Changes a request's headers.
pub(super) fn change_request(
    head: &mut RequestHead,
    changes: &[Change],
    remove: &[String],
) -> Result<(), FieldError> {
    for one in changes {
        match &*one.name {
            ":authority" | "host" => head.set_authority(&one.value)?,
            ":path" => head.set_path(&one.value)?,
            ":method" => head.set_method(&one.value)?,
            name if name.starts_with(':') => return Err(FieldError::Name),
            _ => change(&mut head.fields, one)?,
        }
    }
    for name in remove {
        let name = name.to_ascii_lowercase();
        if !name.starts_with(':') && !is_frame(name.as_bytes()) {
            head.fields.remove_name(name.as_bytes());
        }
    }
    Ok(())
}

/// Changes one header.
pub(super) fn change(fields: &mut Fields, change: &Change) -> Result<(), FieldError> {
    let Change { name, value, how } = change;
    let name = name.as_bytes();
    if is_frame(name) {
        return Ok(());
    }
    match (how, fields.get_name(name)) {
        (How::Add, _) | (How::AddIfAbsent, None) => fields.append(name, value),
        (How::Set, _) | (How::SetIfThere, Some(_)) => fields.set(name, value),
        (How::Join, Some(first)) => {
            let joined = [first, value].join(&b',');
            let others: Vec<Vec<u8>> = fields.all_named(name).skip(1).map(<[u8]>::to_vec).collect();
            fields.set(name, &joined)?;
            others.iter().try_for_each(|other| fields.append(name, other))
        }
        (How::AddIfAbsent, Some(_)) | (How::SetIfThere | How::Join, None) => Ok(()),
    }
}

/// Names and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The headers of a denial: several values of a name are all sent.
pub(super) fn fields_of(changes: &[Change]) -> Result<Pairs, FieldError> {
    let mut fields = Fields::default();
    for one in changes {
        let is_own = one.name.starts_with(':') || is_frame(one.name.as_bytes());
        if !is_own && one.how != How::SetIfThere {
            fields.append(one.name.as_bytes(), &one.value)?;
        }
    }
    Ok(fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

/// Changes the query. As in Envoy its parameters are in order of their names afterwards.
pub(super) fn change_query(
    head: &mut RequestHead,
    set: &[(String, String)],
    remove: &[String],
    text: &mut Vec<u8>,
) -> Result<(), FieldError> {
    if set.is_empty() && remove.is_empty() {
        return Ok(());
    }
    let path = head.path();
    let question = path.iter().position(|&byte| byte == b'?');
    let (path, query) = path.split_at(question.unwrap_or(path.len()));
    let mut all: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for part in query.get(1..).unwrap_or_default().split(|&byte| byte == b'&') {
        let equals = part.iter().position(|&byte| byte == b'=');
        let (key, value) = part.split_at(equals.unwrap_or(part.len()));
        if !part.is_empty() {
            all.entry(key).or_default().push(value.get(1..).unwrap_or_default());
        }
    }
    for (key, value) in set {
        all.insert(key.as_bytes(), vec![value.as_bytes()]);
    }
    for key in remove {
        all.remove(key.as_bytes());
    }
    text.clear();
    text.extend_from_slice(path);
    let pairs = all.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    for (at, (key, value)) in pairs.enumerate() {
        text.push(if at == 0 { b'?' } else { b'&' });
        text.extend_from_slice(key);
        text.push(b'=');
        text.extend_from_slice(value);
    }
    head.set_path(text)
}
