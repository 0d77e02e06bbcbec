//! The cipher suites of TLS 1.2, by OpenSSL's names. Those of TLS 1.3 are not configurable, as in Envoy.

/// A set of TLS 1.2 cipher suites to offer or accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CipherSuites(u8);

impl CipherSuites {
    /// The suites that can be carried out: forward secret, with authenticated encryption.
    pub const NAMES: [&'static str; 6] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ];

    /// All of them.
    pub const ALL: Self = Self((1 << Self::NAMES.len()) - 1);

    /// Other suites that Envoy knows. They are without forward secrecy or with weak encryption; a
    /// list that has them beside better ones is kept to the better ones.
    const WEAK: [&'static str; 10] = [
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES256-SHA",
        "ECDHE-RSA-AES128-SHA256",
        "DES-CBC3-SHA",
    ];

    /// Reads Envoy's list, in which `[A|B]` are equally wanted; an empty one is all.
    ///
    /// # Errors
    ///
    /// The name that is unknown, or the whole list when it leaves none that can be carried out.
    pub fn read(list: &[String]) -> Result<Self, String> {
        if list.is_empty() {
            return Ok(Self::ALL);
        }
        let mut found = Self(0);
        for name in list.iter().flat_map(|entry| entry.trim_matches(['[', ']']).split('|')) {
            match Self::NAMES.iter().position(|known| *known == name) {
                Some(place) => found.0 |= 1 << place,
                None if Self::WEAK.contains(&name) => {}
                None => return Err(name.to_owned()),
            }
        }
        if found.0 == 0 { Err(list.join(", ")) } else { Ok(found) }
    }

    /// Whether a suite is in the set.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        let place = Self::NAMES.iter().position(|known| *known == name);
        place.is_some_and(|place| self.0 & (1 << place) != 0)
    }
}

impl Default for CipherSuites {
    fn default() -> Self {
        Self::ALL
    }
}

/// A list of groups for the key exchange, the most wanted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyGroups([Option<u8>; Self::NAMES.len()]);

impl KeyGroups {
    /// The groups that can be carried out, by BoringSSL's names, in our own order.
    pub const NAMES: [&'static str; 4] = ["X25519MLKEM768", "X25519", "P-256", "P-384"];

    /// All of them, in our own order.
    pub const ALL: Self = Self([Some(0), Some(1), Some(2), Some(3)]);

    /// Reads Envoy's list; an empty one is all.
    ///
    /// # Errors
    ///
    /// The name that is unknown or cannot be carried out.
    pub fn read(list: &[String]) -> Result<Self, String> {
        if list.is_empty() {
            return Ok(Self::ALL);
        }
        let mut groups = Self([None; Self::NAMES.len()]);
        for name in list {
            let known = Self::NAMES.iter().position(|known| known == name);
            let known = known.and_then(|place| u8::try_from(place).ok());
            let known = known.ok_or_else(|| name.clone())?;
            if !groups.0.contains(&Some(known))
                && let Some(free) = groups.0.iter_mut().find(|group| group.is_none())
            {
                *free = Some(known);
            }
        }
        Ok(groups)
    }

    /// Their names, the most wanted first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.0.into_iter().flatten().map(|place| Self::NAMES[usize::from(place)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_kept_to_what_can_be_carried_out() {
        let read = |list: &[&str]| {
            CipherSuites::read(&list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&[]), Ok(CipherSuites::ALL));
        let mixed = read(&["[ECDHE-RSA-AES128-GCM-SHA256|AES128-SHA]"]).unwrap();
        assert!(mixed.has("ECDHE-RSA-AES128-GCM-SHA256") && !mixed.has("AES128-SHA"));
        assert!(!mixed.has("ECDHE-RSA-AES256-GCM-SHA384"));
        assert_eq!(read(&["AES128-SHA"]), Err("AES128-SHA".to_owned()));
        assert_eq!(read(&["ECDHE-RSA-AES128-GCM-SHA256", "NONE"]), Err("NONE".to_owned()));
    }

    #[test]
    fn groups_keep_the_order_that_was_written() {
        let read = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|&name| name.to_owned()).collect();
            KeyGroups::read(&list).map(|groups| groups.names().collect::<Vec<_>>())
        };
        assert_eq!(read(&["P-256", "X25519", "P-256"]), Ok(vec!["P-256", "X25519"]));
        assert_eq!(read(&[]), Ok(KeyGroups::NAMES.to_vec()));
        assert_eq!(read(&["P-521"]), Err("P-521".to_owned()));
    }
}
