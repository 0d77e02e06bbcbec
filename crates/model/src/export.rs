//! Who sees an object: Istio's `exportTo`.

use sluis_resources::ExportTo;

/// Whether an object of namespace `owner` is visible in namespace `viewer`.
///
/// An empty list stands for the mesh-wide default, `default`; when that is empty too, for everybody.
/// `~` hides the object whatever else is written.
#[must_use]
pub fn is_exported(
    export_to: &[ExportTo],
    default: &[ExportTo],
    owner: &str,
    viewer: &str,
) -> bool {
    let effective = if export_to.is_empty() { default } else { export_to };
    if effective.is_empty() {
        return true;
    }
    if effective.contains(&ExportTo::None) {
        return false;
    }
    effective.iter().any(|entry| match entry {
        ExportTo::All => true,
        ExportTo::Same => owner == viewer,
        ExportTo::None => false,
        ExportTo::Namespace(name) => name == viewer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_seen_where_it_is_exported_to() {
        let check = |export: &[ExportTo], default: &[ExportTo], viewer: &str, expected: bool| {
            assert_eq!(is_exported(export, default, "a", viewer), expected, "{export:?} {viewer}");
        };
        let name = |name: &str| ExportTo::Namespace(name.to_owned());
        check(&[], &[], "b", true);
        check(&[], &[ExportTo::All], "b", true);
        check(&[], &[ExportTo::Same], "b", false);
        check(&[], &[ExportTo::Same], "a", true);
        check(&[ExportTo::All], &[ExportTo::Same], "b", true);
        check(&[name("b")], &[], "b", true);
        check(&[name("b")], &[], "a", false);
        check(&[ExportTo::None], &[ExportTo::All], "a", false);
    }
}
