//! The header mutation filter: the filter's own changes, then those of table, host and route.

use sluis_rules::{FilterSetting, MutationFilter, MutationStep};

use super::Stage;
use crate::http::{
    desk::Desk,
    mutate,
    reply::{Reply, Unsent},
};

/// The changes that apply, in the order in which they are made.
fn all<'s>(own: &'s MutationFilter, name: &str, stage: Stage<'s, '_>) -> Vec<&'s MutationFilter> {
    let mut said: Vec<&MutationFilter> = stage
        .matched
        .into_iter()
        .flat_map(|matched| matched.settings(name))
        .filter_map(|setting| match setting {
            FilterSetting::Mutation(filter) => Some(&**filter),
            _ => None,
        })
        .collect();
    // They come the most specific first.
    if own.most_specific_wins {
        said.reverse();
    }
    said.insert(0, own);
    said
}

pub(super) fn on_request<'c>(
    own: &MutationFilter,
    name: &str,
    stage: Stage<'_, '_>,
    desk: &mut Desk,
) -> Result<(), Box<Reply<'c>>> {
    let Desk { request, text, .. } = desk;
    for step in all(own, name, stage).into_iter().flat_map(|filter| &filter.request) {
        match step {
            MutationStep::Remove(name) => request.fields.remove_name(name.as_bytes()),
            MutationStep::RemoveMatching(matcher) => {
                request.fields.remove_where(|name, _| {
                    let name = name.to_ascii_lowercase();
                    name != b"host" && matcher.matches(&name)
                });
            }
            MutationStep::Set(edit) => {
                mutate::edit_request(stage.scene, edit, request, stage.trace, text)
                    .map_err(|_| Reply::fault())?;
            }
        }
    }
    Ok(())
}

pub(super) fn on_response(
    own: &MutationFilter,
    name: &str,
    stage: Stage<'_, '_>,
    desk: &mut Desk,
) -> Result<(), Unsent> {
    let Desk { request, response, text, .. } = desk;
    let fields = &mut response.fields;
    for step in all(own, name, stage).into_iter().flat_map(|filter| &filter.response) {
        match step {
            MutationStep::Remove(name) => fields.remove_name(name.as_bytes()),
            MutationStep::RemoveMatching(matcher) => {
                fields.remove_where(|name, _| matcher.matches(&name.to_ascii_lowercase()));
            }
            MutationStep::Set(edit) => {
                mutate::edit_response(stage.scene, edit, request, fields, stage.trace, text)?;
            }
        }
    }
    Ok(())
}
