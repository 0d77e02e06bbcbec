//! Which roots the workload trusts: those of the authority's latest answer, and those of the file by
//! which the authority is recognised, as far as that is the mesh's bundle. Pure.
//!
//! The file changes the moment that a change of the root begins or ends; the answer, only at the next
//! renewal.

use rustls_pki_types::CertificateDer;

type Certificates = Vec<CertificateDer<'static>>;

/// The roots by where they come from.
#[derive(Debug, Default)]
pub(super) struct Trust {
    answered: Certificates,
    file: Certificates,
    /// The file is the mesh's bundle: an authority may be recognised by other roots than those that it
    /// signs under.
    is_ours: bool,
}

impl Trust {
    /// Takes the roots of an answer; says which are trusted then.
    pub(super) fn answer(&mut self, roots: Certificates) -> Certificates {
        self.answered = roots;
        self.is_ours = share(&self.file, &self.answered);
        self.all()
    }

    /// Takes the roots of the file; says which are trusted then, if that is a change. What the file no
    /// longer has is trusted no longer.
    pub(super) fn file(&mut self, roots: Certificates) -> Option<Certificates> {
        if roots == self.file || roots.is_empty() {
            return None;
        }
        let before = self.all();
        let old = std::mem::replace(&mut self.file, roots);
        let follows = self.is_ours && share(&old, &self.file);
        self.is_ours = follows || share(&self.file, &self.answered);
        if follows {
            let is_retired =
                |root: &&CertificateDer<'static>| old.contains(root) && !self.file.contains(root);
            self.answered =
                self.answered.iter().filter(|root| !is_retired(root)).cloned().collect();
        }
        let all = self.all();
        (all != before && !all.is_empty()).then_some(all)
    }

    fn all(&self) -> Certificates {
        let mut all = self.answered.clone();
        if self.is_ours {
            all.extend(self.file.iter().filter(|root| !self.answered.contains(root)).cloned());
        }
        all
    }
}

fn share(some: &[CertificateDer<'static>], others: &[CertificateDer<'static>]) -> bool {
    some.iter().any(|root| others.contains(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(names: &str) -> Certificates {
        names.bytes().map(|name| vec![name].into()).collect()
    }

    #[test]
    fn a_change_of_the_root_is_followed_by_the_file_alone() {
        let mut trust = Trust::default();
        assert_eq!(trust.file(roots("a")), None, "nothing was answered yet");
        assert_eq!(trust.answer(roots("a")), roots("a"));
        assert_eq!(trust.file(roots("a")), None);
        assert_eq!(trust.file(roots("ab")), Some(roots("ab")));
        assert_eq!(trust.file(roots("b")), Some(roots("b")));
    }

    #[test]
    fn a_root_that_the_file_no_longer_has_is_retired() {
        let mut trust = Trust::default();
        trust.file(roots("ab"));
        trust.answer(roots("ab"));
        assert_eq!(trust.file(roots("b")), Some(roots("b")));
    }

    #[test]
    fn an_answer_from_before_a_change_does_not_undo_it() {
        let mut trust = Trust::default();
        trust.answer(roots("a"));
        trust.file(roots("ab"));
        assert_eq!(trust.answer(roots("a")), roots("ab"));
    }

    #[test]
    fn a_file_of_other_roots_adds_none() {
        let mut trust = Trust::default();
        trust.answer(roots("a"));
        assert_eq!(trust.file(roots("x")), None);
        assert_eq!(trust.answer(roots("b")), roots("b"));
        assert_eq!(trust.file(Vec::new()), None, "an empty file changes nothing");
    }
}
