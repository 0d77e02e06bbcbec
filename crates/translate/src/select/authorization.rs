//! What `AuthorizationPolicy` objects say, as clauses in Istio's order.
//!
//! In:    the policies of a place, the trust domains and the extension providers of the mesh.
//! Out:   [`AuthorizationInput`].
//! Never: a policy that is left out: one whose provider cannot be asked refuses what it matches.

use std::{collections::BTreeMap, sync::Arc};

use sluis_model::{MtlsMode, Owned};
use sluis_nouns::HostPattern;
use sluis_resources::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, ConditionKey, ConditionValue,
    ExtAuthz, Operation, PathNormalization, PathPattern, ProviderKind, Source, TextPattern, Values,
};

use super::{Selection, destination::ClusterKey};
use crate::{
    Attribute, AuthorizationInput, Clause, CustomInput, ExtAuthzInput, Fault, PolicySet, Role,
    RuleInput, RuleMatch, Wanted,
};

/// What the names of rules that a provider decides begin with; the provider's name follows.
pub(crate) const CUSTOM_RULE: &str = "istio-ext-authz";

/// The trust domain that policies name when they mean the mesh's own.
const OWN_DOMAIN: &str = "cluster.local";

/// Parts of an identity: `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
const IDENTITY_PARTS: usize = 5;

/// A pattern as it was written.
pub(crate) fn written(pattern: &TextPattern) -> String {
    match pattern {
        TextPattern::Exact(text) => text.clone(),
        TextPattern::Prefix(text) => format!("{text}*"),
        TextPattern::Suffix(text) => format!("*{text}"),
        TextPattern::Present => "*".to_owned(),
    }
}

impl Selection<'_> {
    /// The policies that hold for the proxy's workload; made once.
    pub(super) fn authorization(&mut self) -> Arc<AuthorizationInput> {
        if let Some(made) = &self.authorization {
            return Arc::clone(made);
        }
        let (snapshot, view) = (self.snapshot, self.view);
        let policies: Vec<&Owned<AuthorizationPolicy>> =
            snapshot.authorization_policies(&view.name.namespace, &view.labels).collect();
        for policy in &policies {
            self.warn_of_nameless_peers(policy);
        }
        let tokens = self.tokens();
        let made = Arc::new(AuthorizationInput { tokens, ..self.policies(&policies) });
        self.authorization = Some(Arc::clone(&made));
        made
    }

    /// What some policies say together.
    pub(super) fn policies(
        &mut self,
        policies: &[&Owned<AuthorizationPolicy>],
    ) -> AuthorizationInput {
        for policy in policies {
            self.warn_of_spellings(policy);
        }
        let mut input = AuthorizationInput::default();
        let mut custom: BTreeMap<&str, Vec<&Owned<AuthorizationPolicy>>> = BTreeMap::new();
        for policy in policies {
            let set = match &policy.spec().action {
                AuthorizationAction::Allow => &mut input.allow,
                AuthorizationAction::Deny => &mut input.deny,
                AuthorizationAction::Audit => &mut input.audit,
                AuthorizationAction::Custom(provider) => {
                    custom.entry(provider).or_default().push(policy);
                    continue;
                }
            };
            set.of(policy).get_or_insert_default().extend(self.rules(policy, ""));
        }
        let is_lone = custom.len() == 1;
        for (provider, policies) in custom {
            let prefix = format!("{CUSTOM_RULE}-{provider}-");
            let rules = policies.iter().flat_map(|policy| self.rules(policy, &prefix)).collect();
            let backend = if is_lone {
                self.backend(provider)
            } else {
                Err("policies of one workload name several providers".to_owned())
            };
            let backend = backend.map_err(|reason| {
                let message = format!("{reason}: what the rules match is refused");
                for policy in &policies {
                    let fault = Fault::error(policy.meta().at.clone(), message.clone());
                    self.fault(policy.meta(), fault.field("spec.provider.name"));
                }
            });
            if backend.as_ref().is_ok_and(|backend| backend.is_http) {
                self.warn_of_bytes(&policies);
            }
            input.custom.push(CustomInput {
                provider: provider.to_owned(),
                rules,
                backend: backend.ok(),
            });
        }
        input
    }

    /// Tells of DENY by path where paths are not normalised: `//admin` is not `/admin`.
    fn warn_of_spellings(&mut self, policy: &Owned<AuthorizationPolicy>) {
        if self.snapshot.mesh().path_normalization != PathNormalization::None
            || policy.spec().action != AuthorizationAction::Deny
        {
            return;
        }
        for rule in &policy.spec().rules {
            if rule.to.iter().any(|operation| !operation.paths.any.is_empty()) {
                let message = "the mesh does not normalise paths: other spellings of a path are let \
                               through";
                let fault = Fault::warning(rule.at.clone(), message)
                    .field("spec.rules.to.operation.paths")
                    .help("set pathNormalization in the mesh configuration");
                self.fault(policy.meta(), fault);
            }
        }
    }

    /// Tells of rules that a client escapes by having no identity: ALLOW for all but some, DENY for
    /// some, where plain text is taken.
    fn warn_of_nameless_peers(&mut self, policy: &Owned<AuthorizationPolicy>) {
        let view = self.view;
        let mtls = self.snapshot.mtls(&view.name.namespace, &view.labels);
        let is_strict = mtls.mode() == MtlsMode::Strict
            && mtls.ports().all(|(_, mode)| mode == MtlsMode::Strict);
        if is_strict || view.role == Role::Gateway {
            return;
        }
        let is_escaped = |source: &Source| match policy.spec().action {
            AuthorizationAction::Allow => names_identity(source, false),
            AuthorizationAction::Deny => names_identity(source, true),
            AuthorizationAction::Audit | AuthorizationAction::Custom(_) => false,
        };
        for rule in &policy.spec().rules {
            if rule.from.iter().any(is_escaped) {
                let message = "plain text is taken here, and its sender has no identity: this does \
                               not hold it back";
                let fault = Fault::warning(rule.at.clone(), message)
                    .field("spec.rules.from.source")
                    .help("a PeerAuthentication with mode STRICT demands an identity");
                self.fault(policy.meta(), fault);
            }
        }
    }

    /// Tells of policies whose provider speaks HTTP: connections that are not HTTP, or are not taken
    /// for it on a port that is sniffed, go on without having been asked about, as in Istio.
    fn warn_of_bytes(&mut self, policies: &[&Owned<AuthorizationPolicy>]) {
        for policy in policies {
            let message = "the provider is asked about requests only: connections that are not HTTP \
                           are not held back";
            let fault = Fault::warning(policy.meta().at.clone(), message)
                .field("spec.provider.name")
                .help("a provider of envoyExtAuthzGrpc is asked about connections too");
            self.fault(policy.meta(), fault);
        }
    }

    /// How a provider is asked.
    fn backend(&self, name: &str) -> Result<ExtAuthzInput, String> {
        let providers = &self.snapshot.mesh().extension_providers;
        let provider = providers.iter().find(|provider| provider.name == name);
        let (is_http, settings): (bool, &ExtAuthz) = match provider.map(|found| &found.kind) {
            Some(ProviderKind::ExtAuthzHttp(settings)) => (true, settings),
            Some(ProviderKind::ExtAuthzGrpc(settings)) => (false, settings),
            Some(_) => return Err(format!("the provider {name:?} decides nothing")),
            None => return Err(format!("the mesh has no provider {name:?}")),
        };
        if settings.request_headers.iter().any(|header| header == "*") {
            return Err("a lone star stands for no header: write a prefix or a suffix".to_owned());
        }
        let (service, port) = (&settings.address.service, settings.address.port);
        let (namespace, host) = match service.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, service.as_str()),
        };
        let host: HostPattern = host.parse().map_err(|error| format!("{host:?}: {error}"))?;
        let mut homes = self
            .snapshot
            .all_services()
            .filter(|known| known.host == host)
            .filter(|known| namespace.is_none_or(|wanted| known.namespace() == wanted))
            .map(|known| known.namespace());
        let Some(home) = homes.next() else {
            return Err(format!("no service {service} is known"));
        };
        if homes.any(|other| other != home) {
            return Err(format!("several namespaces have {service}: write namespace/host"));
        }
        let key = ClusterKey { host: host.clone(), subset: String::new(), port };
        Ok(ExtAuthzInput {
            is_http,
            cluster: key.name(),
            host: host.to_string(),
            settings: settings.clone(),
        })
    }

    /// The rules of a policy, each under its name.
    pub(super) fn rules(
        &self,
        policy: &Owned<AuthorizationPolicy>,
        prefix: &str,
    ) -> Vec<RuleInput> {
        let (namespace, name) = (&policy.meta().name.namespace, &policy.meta().name.name);
        let id = |index: usize| format!("{prefix}ns[{namespace}]-policy[{name}]-rule[{index}]");
        let written = &policy.spec().rules;
        if written.is_empty() {
            return vec![RuleInput { id: id(0), matches: None }];
        }
        let domains = self.domains();
        let rule = |(index, rule): (usize, &AuthorizationRule)| RuleInput {
            id: id(index),
            matches: Some(matches(rule, &domains)),
        };
        written.iter().enumerate().map(rule).collect()
    }
}

impl Selection<'_> {
    /// What a rule matches, in the trust domains of the mesh.
    pub(super) fn rule_match(&self, rule: &AuthorizationRule) -> RuleMatch {
        matches(rule, &self.domains())
    }

    /// The trust domain of the mesh, and those that stand for it.
    fn domains(&self) -> Vec<&str> {
        let mesh = self.snapshot.mesh();
        let aliases = mesh.trust_domain_aliases.iter();
        std::iter::once(&mesh.trust_domain).chain(aliases).map(|one| one.as_str()).collect()
    }
}

/// Whether a source looks at identities: at some (`is_wanted`), or at all but some.
pub(super) fn names_identity(source: &Source, is_wanted: bool) -> bool {
    fn has<T>(values: &Values<T>, is_wanted: bool) -> bool {
        !(if is_wanted { &values.any } else { &values.none }).is_empty()
    }
    has(&source.principals, is_wanted)
        || has(&source.namespaces, is_wanted)
        || has(&source.service_accounts, is_wanted)
        || has(&source.trust_domains, is_wanted)
}

impl PolicySet {
    fn of(&mut self, policy: &Owned<AuthorizationPolicy>) -> &mut Option<Vec<RuleInput>> {
        if policy.spec().dry_run { &mut self.dry_run } else { &mut self.enforced }
    }
}

/// What a rule matches: its conditions go with every source or with every operation, behind what
/// these say themselves.
fn matches(rule: &AuthorizationRule, domains: &[&str]) -> RuleMatch {
    let (mut asked, mut asking) = (Vec::new(), Vec::new());
    for condition in &rule.when {
        let list = if is_of_what_is_asked(&condition.key) { &mut asked } else { &mut asking };
        let values = Values {
            any: condition.values.any.iter().cloned().map(Wanted::Value).collect(),
            none: condition.values.none.iter().cloned().map(Wanted::Value).collect(),
        };
        push(list, Attribute::Key(condition.key.clone()), values);
    }
    let with = |own: Vec<Clause>, more: &[Clause]| own.into_iter().chain(more.to_vec()).collect();
    let mut from: Vec<Vec<Clause>> =
        rule.from.iter().map(|source| with(of_source(source), &asking)).collect();
    let mut to: Vec<Vec<Clause>> =
        rule.to.iter().map(|operation| with(of_operation(operation), &asked)).collect();
    if from.is_empty() {
        from.push(asking);
    }
    if to.is_empty() {
        to.push(asked);
    }
    for clause in from.iter_mut().flatten() {
        spread(clause, domains);
    }
    RuleMatch { from, to }
}

fn is_of_what_is_asked(key: &ConditionKey) -> bool {
    matches!(
        key,
        ConditionKey::DestinationIp | ConditionKey::DestinationPort | ConditionKey::ConnectionSni
    )
}

fn push(list: &mut Vec<Clause>, attribute: Attribute, values: Values<Wanted>) {
    if !values.is_empty() {
        list.push(Clause { attribute, any: values.any, none: values.none });
    }
}

fn each<T>(values: &Values<T>, make: impl Fn(&T) -> ConditionValue) -> Values<Wanted> {
    let all = |list: &[T]| list.iter().map(|value| Wanted::Value(make(value))).collect();
    Values { any: all(&values.any), none: all(&values.none) }
}

fn of_source(source: &Source) -> Vec<Clause> {
    let text = |pattern: &TextPattern| ConditionValue::Text(pattern.clone());
    let (ip, mut list) = (|range: &_| ConditionValue::Ip(*range), Vec::new());
    let mut add = |key, values| push(&mut list, Attribute::Key(key), values);
    add(ConditionKey::SourcePrincipal, each(&source.principals, text));
    add(ConditionKey::RequestPrincipal, each(&source.request_principals, text));
    let accounts =
        each(&source.service_accounts, |account| ConditionValue::ServiceAccount(account.clone()));
    add(ConditionKey::SourceServiceAccount, accounts);
    add(ConditionKey::SourceTrustDomain, each(&source.trust_domains, text));
    add(ConditionKey::SourceNamespace, each(&source.namespaces, text));
    add(ConditionKey::RemoteIp, each(&source.remote_ip_blocks, ip));
    add(ConditionKey::SourceIp, each(&source.ip_blocks, ip));
    list
}

fn of_operation(operation: &Operation) -> Vec<Clause> {
    let text = |pattern: &TextPattern| ConditionValue::Text(pattern.clone());
    let mut list = Vec::new();
    push(&mut list, Attribute::Host, each(&operation.hosts, text));
    push(&mut list, Attribute::Method, each(&operation.methods, text));
    let path = |pattern: &PathPattern| match pattern {
        PathPattern::Text(pattern) => Wanted::Value(ConditionValue::Text(pattern.clone())),
        PathPattern::Template(template) => Wanted::Template(template.clone()),
    };
    let paths = &operation.paths;
    let paths = Values {
        any: paths.any.iter().map(path).collect(),
        none: paths.none.iter().map(path).collect(),
    };
    push(&mut list, Attribute::Path, paths);
    let ports = each(&operation.ports, |port| ConditionValue::Port(*port));
    push(&mut list, Attribute::Key(ConditionKey::DestinationPort), ports);
    list
}

/// Has an identity, or a trust domain, of the mesh stand for itself under all of the mesh's names.
fn spread(clause: &mut Clause, domains: &[&str]) {
    let spread: fn(&TextPattern, &[&str]) -> Vec<TextPattern> = match &clause.attribute {
        Attribute::Key(ConditionKey::SourcePrincipal) => principals,
        Attribute::Key(ConditionKey::SourceTrustDomain) => trust_domains,
        _ => return,
    };
    for list in [&mut clause.any, &mut clause.none] {
        let mut all: Vec<Wanted> = Vec::new();
        for value in std::mem::take(list) {
            match value {
                Wanted::Value(ConditionValue::Text(pattern)) => {
                    let made = spread(&pattern, domains).into_iter();
                    all.extend(made.map(|one| Wanted::Value(ConditionValue::Text(one))));
                }
                other => all.push(other),
            }
        }
        *list = all;
    }
}

/// An identity under every trust domain of the mesh, where it is one of the mesh.
fn principals(pattern: &TextPattern, domains: &[&str]) -> Vec<TextPattern> {
    let text = written(pattern);
    let (domain, rest) = match text.split_once('/') {
        Some((domain, rest)) if text.split('/').count() == IDENTITY_PARTS && domain != "*" => {
            (domain, rest)
        }
        // It says nothing of the trust domain.
        _ => return vec![pattern.clone()],
    };
    let is_own = |own: &&str| {
        *own == domain
            || domain.strip_prefix('*').is_some_and(|end| own.ends_with(end))
            || domain.strip_suffix('*').is_some_and(|start| own.starts_with(start))
    };
    if domain != OWN_DOMAIN && !domains.iter().any(is_own) {
        return vec![pattern.clone()];
    }
    let mut made: Vec<TextPattern> = Vec::new();
    for own in domains {
        let keeps = domain.strip_prefix('*').is_some_and(|end| own.ends_with(end));
        let one = if keeps { pattern.clone() } else { TextPattern::new(&format!("{own}/{rest}")) };
        if !made.contains(&one) {
            made.push(one);
        }
    }
    made
}

/// A trust domain of the mesh under all of its names.
fn trust_domains(pattern: &TextPattern, domains: &[&str]) -> Vec<TextPattern> {
    match pattern {
        TextPattern::Exact(domain) if domains.contains(&domain.as_str()) => {
            domains.iter().map(|own| TextPattern::Exact((*own).to_owned())).collect()
        }
        other => vec![other.clone()],
    }
}
