//! Why a token is not taken.
//!
//! The texts and numbers are Envoy's, where Envoy has the reason too; numbers from 100 on are ours.

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.message())]
pub enum Refusal {
    /// There is no token.
    Missing,
    /// `nbf` is in the future.
    NotYetValid,
    /// `exp` is in the past.
    Expired,
    /// It is not three parts with dots between them, or too long.
    Format,
    /// The header is no base64url.
    HeaderBase64,
    /// The header is no JSON object, or names a field twice.
    HeaderJson,
    /// The header has no `alg`.
    HeaderAlg,
    /// The `alg` is not one that is taken; `none` never is.
    Algorithm,
    /// `kid` is no text.
    HeaderKid,
    /// The header asks for an extension (`crit`, RFC 7515 §4.1.11; `b64`, RFC 7797) that is not carried out. Envoy does not look at it.
    Critical,
    /// The payload is no base64url.
    PayloadBase64,
    /// The payload is no JSON object, or names a claim twice.
    PayloadJson,
    /// `iss` is no text.
    Issuer,
    /// `sub` is no text.
    Subject,
    /// `iat` is no number.
    IatKind,
    /// `iat` is negative or too large.
    IatRange,
    /// `nbf` is no number.
    NbfKind,
    /// `nbf` is negative or too large.
    NbfRange,
    /// `exp` is no number.
    ExpKind,
    /// `exp` is negative or too large.
    ExpRange,
    /// `jti` is no text.
    Jti,
    /// `aud` is neither a text nor a list of texts.
    AudienceKind,
    /// The signature is no base64url.
    SignatureBase64,
    /// Nobody takes tokens of this issuer here.
    UnknownIssuer,
    /// The token is for others.
    Audience,
    /// The signature is not one of the keys'.
    Signature,
    /// The provider does not take tokens for this subject.
    SubjectForbidden,
    /// The token has no `exp`, or lives longer than the provider takes.
    Lifetime,
    /// The key set is no JSON.
    KeySetJson,
    /// The key set has no `keys`.
    NoKeys,
    /// The `keys` are no list.
    KeysKind,
    /// The key set has no key that can be used.
    NoValidKey,
    /// The key set has no key of the token's `kid` and `alg`.
    NoMatchingKey,
    /// The key set could not be fetched. No other is taken in its place.
    Fetch,
}

/// A reason's number, its text for the client and its name for access logs.
struct Row(u32, &'static str, &'static str);

impl Refusal {
    /// The text that the client is told.
    #[must_use]
    pub fn message(self) -> &'static str {
        self.row().1
    }

    /// The number that Envoy has for it.
    #[must_use]
    pub fn code(self) -> u32 {
        self.row().0
    }

    /// What `%RESPONSE_CODE_DETAILS%` says.
    #[must_use]
    pub fn details(self) -> &'static str {
        self.row().2
    }

    /// The status of the answer: the token is good, but for others, or no good at all.
    #[must_use]
    pub fn http_status(self) -> u16 {
        if self == Self::Audience { 403 } else { 401 }
    }

    #[expect(clippy::too_many_lines, reason = "one line for each reason")]
    fn row(self) -> Row {
        match self {
            Self::Missing => Row(1, "Jwt is missing", "jwt_authn_access_denied{Jwt_is_missing}"),
            Self::NotYetValid => {
                Row(2, "Jwt not yet valid", "jwt_authn_access_denied{Jwt_not_yet_valid}")
            }
            Self::Expired => Row(3, "Jwt is expired", "jwt_authn_access_denied{Jwt_is_expired}"),
            Self::Format => Row(
                4,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
                "jwt_authn_access_denied{Jwt_is_not_in_the_form_of_Header.Payload.Signature_with_two_dots_and_3_sections}",
            ),
            Self::HeaderBase64 => Row(
                5,
                "Jwt header is an invalid Base64url encoded",
                "jwt_authn_access_denied{Jwt_header_is_an_invalid_Base64url_encoded}",
            ),
            Self::HeaderJson => Row(
                6,
                "Jwt header is an invalid JSON",
                "jwt_authn_access_denied{Jwt_header_is_an_invalid_JSON}",
            ),
            Self::HeaderAlg => Row(
                7,
                "Jwt header [alg] field is required and must be a string",
                "jwt_authn_access_denied{Jwt_header_[alg]_field_is_required_and_must_be_a_string}",
            ),
            Self::Algorithm => Row(
                8,
                "Jwt header [alg] is not supported",
                "jwt_authn_access_denied{Jwt_header_[alg]_is_not_supported}",
            ),
            Self::HeaderKid => Row(
                9,
                "Jwt header [kid] field is not a string",
                "jwt_authn_access_denied{Jwt_header_[kid]_field_is_not_a_string}",
            ),
            Self::Critical => Row(
                100,
                "Jwt header asks for an extension that is not supported",
                "jwt_authn_access_denied{Jwt_header_asks_for_an_extension_that_is_not_supported}",
            ),
            Self::PayloadBase64 => Row(
                10,
                "Jwt payload is an invalid Base64url encoded",
                "jwt_authn_access_denied{Jwt_payload_is_an_invalid_Base64url_encoded}",
            ),
            Self::PayloadJson => Row(
                11,
                "Jwt payload is an invalid JSON",
                "jwt_authn_access_denied{Jwt_payload_is_an_invalid_JSON}",
            ),
            Self::Issuer => Row(
                12,
                "Jwt payload [iss] field is not a string",
                "jwt_authn_access_denied{Jwt_payload_[iss]_field_is_not_a_string}",
            ),
            Self::Subject => Row(
                13,
                "Jwt payload [sub] field is not a string",
                "jwt_authn_access_denied{Jwt_payload_[sub]_field_is_not_a_string}",
            ),
            Self::IatKind => Row(
                14,
                "Jwt payload [iat] field is not an integer",
                "jwt_authn_access_denied{Jwt_payload_[iat]_field_is_not_an_integer}",
            ),
            Self::IatRange => Row(
                15,
                "Jwt payload [iat] field is not a positive 64 bit integer",
                "jwt_authn_access_denied{Jwt_payload_[iat]_field_is_not_a_positive_64_bit_integer}",
            ),
            Self::NbfKind => Row(
                16,
                "Jwt payload [nbf] field is not an integer",
                "jwt_authn_access_denied{Jwt_payload_[nbf]_field_is_not_an_integer}",
            ),
            Self::NbfRange => Row(
                17,
                "Jwt payload [nbf] field is not a positive 64 bit integer",
                "jwt_authn_access_denied{Jwt_payload_[nbf]_field_is_not_a_positive_64_bit_integer}",
            ),
            Self::ExpKind => Row(
                18,
                "Jwt payload [exp] field is not an integer",
                "jwt_authn_access_denied{Jwt_payload_[exp]_field_is_not_an_integer}",
            ),
            Self::ExpRange => Row(
                19,
                "Jwt payload [exp] field is not a positive 64 bit integer",
                "jwt_authn_access_denied{Jwt_payload_[exp]_field_is_not_a_positive_64_bit_integer}",
            ),
            Self::Jti => Row(
                20,
                "Jwt payload [jti] field is not a string",
                "jwt_authn_access_denied{Jwt_payload_[jti]_field_is_not_a_string}",
            ),
            Self::AudienceKind => Row(
                21,
                "Jwt payload [aud] field is not a string or string list",
                "jwt_authn_access_denied{Jwt_payload_[aud]_field_is_not_a_string_or_string_list}",
            ),
            Self::SignatureBase64 => Row(
                22,
                "Jwt signature is an invalid Base64url encoded",
                "jwt_authn_access_denied{Jwt_signature_is_an_invalid_Base64url_encoded}",
            ),
            Self::UnknownIssuer => Row(
                24,
                "Jwt issuer is not configured",
                "jwt_authn_access_denied{Jwt_issuer_is_not_configured}",
            ),
            Self::Audience => Row(
                25,
                "Audiences in Jwt are not allowed",
                "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}",
            ),
            Self::Signature => {
                Row(26, "Jwt verification fails", "jwt_authn_access_denied{Jwt_verification_fails}")
            }
            Self::SubjectForbidden => Row(
                101,
                "Jwt verification fails",
                "jwt_authn_access_denied{Jwt_verification_fails}",
            ),
            Self::Lifetime => Row(
                102,
                "Jwt verification fails",
                "jwt_authn_access_denied{Jwt_verification_fails}",
            ),
            Self::KeySetJson => Row(
                28,
                "Jwks is an invalid JSON",
                "jwt_authn_access_denied{Jwks_is_an_invalid_JSON}",
            ),
            Self::NoKeys => Row(
                29,
                "Jwks does not have [keys] field",
                "jwt_authn_access_denied{Jwks_does_not_have_[keys]_field}",
            ),
            Self::KeysKind => Row(
                30,
                "[keys] in Jwks is not an array",
                "jwt_authn_access_denied{[keys]_in_Jwks_is_not_an_array}",
            ),
            Self::NoValidKey => Row(
                31,
                "Jwks doesn't have any valid public key",
                "jwt_authn_access_denied{Jwks_doesn't_have_any_valid_public_key}",
            ),
            Self::NoMatchingKey => Row(
                32,
                "Jwks doesn't have key to match kid or alg from Jwt",
                "jwt_authn_access_denied{Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt}",
            ),
            Self::Fetch => Row(
                40,
                "Jwks remote fetch is failed",
                "jwt_authn_access_denied{Jwks_remote_fetch_is_failed}",
            ),
        }
    }
}
