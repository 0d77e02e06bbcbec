//! Secrets, as SDS resources.

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, GenericSecret, Secret, TlsCertificate, secret,
    },
};
use sluis_resources::SecretValue;

use crate::{SecretContent, SecretInput};

/// One secret.
pub(crate) fn secret(input: &SecretInput) -> Secret {
    let content = match &input.content {
        SecretContent::Pair { chain, key } => secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(bytes(chain)),
            private_key: Some(bytes(key)),
            ..TlsCertificate::default()
        }),
        SecretContent::Roots { roots, crl } => {
            secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(bytes(roots)),
                crl: crl.as_ref().map(bytes),
                ..CertificateValidationContext::default()
            })
        }
        SecretContent::Generic(entries) => secret::Type::GenericSecret(GenericSecret {
            secrets: entries.iter().map(|(key, value)| (key.clone(), bytes(value))).collect(),
            ..GenericSecret::default()
        }),
        SecretContent::Single(value) => secret::Type::GenericSecret(GenericSecret {
            secret: Some(bytes(value)),
            ..GenericSecret::default()
        }),
    };
    Secret { name: input.name.clone(), r#type: Some(content) }
}

fn bytes(value: &SecretValue) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(value.expose().to_vec())),
        ..DataSource::default()
    }
}
