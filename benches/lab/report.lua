-- One run of wrk: `-- METHOD BODY`; prints what it measured as one line of JSON.
init = function(args)
  wrk.method = args[1] or "GET"
  if args[2] and args[2] ~= "" then wrk.body = args[2] end
end

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p99": %d, "p999": %d, "errors": %d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
