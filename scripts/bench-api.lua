-- Requests of one kind: wrk … -- KIND APPS VERSIONS TOKEN. Prints `result p50 p99 requests/s errors`, times in milliseconds.
local kind, apps, versions, count = nil, 0, 0, 0

-- The n-th app, with no order that a cache could guess.
local function app(n) return string.format("app-%05d", n * 7919 % apps) end

local function get(path, range) return function(n) return "GET", path(n), range end end
local function of_app(rest) return function(n) return "/apps/" .. app(n) .. rest end end
local function fixed(path) return function() return path end end

local kinds = {
  region = get(fixed "/regions/us"),
  apps = get(fixed "/apps", "name ..; max=200"),
  middle = function(n) return "GET", "/apps", "name ]" .. app(n) .. "..; max=200" end,
  app = get(of_app ""),
  releases = get(of_app "/releases"),
  newest = get(of_app "/releases", "version ..; max=15,order=desc"),
  release = function(n) return "GET", "/apps/" .. app(n) .. "/releases/" .. 1 + n % versions end,
  config = get(of_app "/config-vars"),
  builds = get(of_app "/builds"),
  formation = get(of_app "/formation"),
  domains = get(of_app "/domains"),
  dynos = get(of_app "/dynos"),
  addons = get(of_app "/addons"),
  collaborators = get(of_app "/collaborators"),
  events_of_app = get(of_app "/events", "sequence ..; max=50,order=desc"),
  events = get(fixed "/events", "sequence ..; max=50,order=desc"),
  write_config = function(n) return "PATCH", "/apps/" .. app(n) .. "/config-vars", nil, '{"CHANGED":"' .. n .. '"}' end,
  write_one = function(n) return "PATCH", "/apps/app-00001/config-vars", nil, '{"ALSO":"' .. n .. '"}' end,
  create = function(n) return "POST", "/apps", nil, '{"name":"another-' .. n .. '"}' end,
}

function init(args)
  kind, apps, versions = kinds[args[1]], tonumber(args[2]), tonumber(args[3])
  wrk.headers["Authorization"] = "Bearer " .. args[4]
  wrk.headers["Content-Type"] = "application/json"
  -- Another run changes to other values.
  count = os.time() * 1000
end

function request()
  count = count + 1
  local method, path, range, body = kind(count)
  wrk.headers["Range"] = range
  return wrk.format(method, path, nil, body)
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local rate = summary.requests / summary.duration * 1e6
  print(string.format("result %.3f %.3f %.0f %d", latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, rate, failed))
end
