//! Istio's annotations that more than one part of the mesh must know by name.

/// Those by which a pod or WorkloadEntry says what a packet filter brings to its sidecar: read with
/// the manifest, and carried out where the rules are written.
pub const CAPTURE_ANNOTATIONS: [&str; 11] = [
    "sidecar.istio.io/interceptionMode",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/includeOutboundPorts",
    "traffic.sidecar.istio.io/excludeOutboundPorts",
    "traffic.sidecar.istio.io/includeOutboundIPRanges",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges",
    "traffic.sidecar.istio.io/excludeInterfaces",
    "traffic.sidecar.istio.io/kubevirtInterfaces",
    "istio.io/reroute-virtual-interfaces",
    "status.sidecar.istio.io/port",
];
