//! Field sections compressed and restored (HPACK, RFC 7541).
