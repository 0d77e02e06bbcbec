//! Header mutations of routes: remove, set, add, with values from formats.

use sluis_http1::{Fields, RequestHead};
use sluis_rules::{HeaderAction, HeaderEdit, HeaderMutations, HeaderText};

use super::{scene::Scene, trace::Trace};
use crate::access_log::Escape;

/// A mutation could not be made; the message must not go on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unmade;

/// Applies the request's part.
pub(super) fn request(
    scene: Scene<'_>,
    mutations: &HeaderMutations,
    head: &mut RequestHead,
    trace: &Trace<'_>,
    text: &mut Vec<u8>,
) -> Result<(), Unmade> {
    for name in &mutations.request_remove {
        if !name.eq_ignore_ascii_case("host") {
            head.fields.remove_name(name.as_bytes());
        }
    }
    for edit in &mutations.request_set {
        edit_request(scene, edit, head, trace, text)?;
    }
    Ok(())
}

/// Sets or adds one header of a request.
pub(super) fn edit_request(
    scene: Scene<'_>,
    edit: &HeaderEdit,
    head: &mut RequestHead,
    trace: &Trace<'_>,
    text: &mut Vec<u8>,
) -> Result<(), Unmade> {
    let value = value_of(scene, &edit.value, Some(head), None, trace, text)?;
    match &*edit.name {
        ":authority" | "host" => head.set_authority(value).map_err(|_| Unmade),
        ":path" => head.set_path(value).map_err(|_| Unmade),
        ":method" => head.set_method(value).map_err(|_| Unmade),
        name if name.starts_with(':') => Err(Unmade),
        _ => apply(edit, value, &mut head.fields),
    }
}

/// Applies the response's part.
pub(super) fn response(
    scene: Scene<'_>,
    mutations: &HeaderMutations,
    request: &RequestHead,
    fields: &mut Fields,
    trace: &Trace<'_>,
    text: &mut Vec<u8>,
) -> Result<(), Unmade> {
    for name in &mutations.response_remove {
        fields.remove_name(name.as_bytes());
    }
    for edit in &mutations.response_set {
        edit_response(scene, edit, request, fields, trace, text)?;
    }
    Ok(())
}

/// Sets or adds one header of a response.
pub(super) fn edit_response(
    scene: Scene<'_>,
    edit: &HeaderEdit,
    request: &RequestHead,
    fields: &mut Fields,
    trace: &Trace<'_>,
    text: &mut Vec<u8>,
) -> Result<(), Unmade> {
    let value = value_of(scene, &edit.value, Some(request), Some(fields), trace, text)?;
    apply(edit, value, fields)
}

fn apply(edit: &HeaderEdit, value: &[u8], fields: &mut Fields) -> Result<(), Unmade> {
    if value.is_empty() && !edit.keep_empty {
        return Ok(());
    }
    let name = edit.name.as_bytes();
    let is_there = || fields.get_name(name).is_some();
    let done = match edit.action {
        HeaderAction::Append => fields.append(name, value),
        HeaderAction::AddIfAbsent if is_there() => Ok(()),
        HeaderAction::OverwriteIfExists if !is_there() => Ok(()),
        HeaderAction::AddIfAbsent | HeaderAction::Overwrite | HeaderAction::OverwriteIfExists => {
            fields.set(name, value)
        }
    };
    done.map_err(|_| Unmade)
}

fn value_of<'v>(
    scene: Scene<'_>,
    value: &'v HeaderText,
    request: Option<&RequestHead>,
    response: Option<&Fields>,
    trace: &Trace<'_>,
    text: &'v mut Vec<u8>,
) -> Result<&'v [u8], Unmade> {
    match value {
        HeaderText::Literal(value) => Ok(value.as_bytes()),
        HeaderText::Format(format) => {
            let format = scene.worker.http.format(format).ok_or(Unmade)?;
            let record = trace.record(scene.connection, scene.now);
            text.clear();
            format.write(
                &crate::access_log::Record { request, response, ..record },
                Escape::Raw,
                b"",
                text,
            );
            Ok(text)
        }
    }
}
