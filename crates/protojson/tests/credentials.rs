//! The credentials message: what its .proto file says and what `sluis-envoy` decodes are the same.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, Value};
use sluis_envoy::credentials::CredentialInjection;

const PACKAGE: &str = "sluis.egress.v1alpha1.";
const DEPTH_MAX: usize = 6;

/// A message with every field set; `chosen` says which field of a oneof.
fn full(kind: &MessageDescriptor, chosen: usize, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    if depth == DEPTH_MAX || !kind.full_name().starts_with(PACKAGE) {
        return message;
    }
    for field in kind.fields() {
        if let Some(oneof) = field.containing_oneof() {
            let of: Vec<_> = oneof.fields().collect();
            if of[chosen % of.len()] != field {
                continue;
            }
        }
        let one = |kind: Kind| match kind {
            Kind::String => Value::String(field.name().to_owned()),
            Kind::Bool => Value::Bool(true),
            Kind::Uint32 => Value::U32(field.number()),
            Kind::Uint64 => Value::U64(u64::from(field.number())),
            Kind::Enum(_) => Value::EnumNumber(1),
            Kind::Message(inner) => Value::Message(full(&inner, chosen, depth + 1)),
            other => panic!("{}: a kind the test does not know: {other:?}", field.full_name()),
        };
        let value = if field.is_map() {
            let text = Value::String("value".to_owned());
            Value::Map([(MapKey::String("name".to_owned()), text)].into())
        } else if field.is_list() {
            Value::List(vec![one(field.kind()), one(field.kind())])
        } else {
            one(field.kind())
        };
        message.set_field(&field, value);
    }
    message
}

#[test]
fn every_field_of_the_file_is_a_field_of_the_struct() {
    let pool = DescriptorPool::decode(sluis_protojson::descriptors()).expect("a descriptor set");
    let name = format!("{PACKAGE}CredentialInjection");
    let root = pool.get_message_by_name(&name).expect("the message is in the set");
    for chosen in 0..10 {
        let written = full(&root, chosen, 0);
        let bytes = written.encode_to_vec();
        let read = CredentialInjection::decode(&*bytes).expect("the struct decodes it");
        let again = DynamicMessage::decode(root.clone(), &*read.encode_to_vec()).expect("decodes");
        assert_eq!(written, again, "injection {chosen}");
    }
}
