-- The router's side of the table: which request goes to whom, and how HQ changes it.
--
-- Shared memory, seen by all workers:
--   quarry_routes   d:<domain>          the stack that owns the domain
--                   s:<stack>           that stack's whole table, the JSON as HQ sent it
--                   changes             goes up with every change of a table; see settled()
--   quarry_flights  <address>|<pid>     requests under way at a peer through that worker
--   quarry_workers  <pid>               a worker that has started
--   quarry_tls      c:<domain>          the domain's certificate, the JSON as HQ sent it
--                   v:<domain>          a number that no other certificate has had
--                   h:<token>           the answer to an authority's challenge
--                   changes             goes up with every certificate that comes or goes
-- The table is the truth: a d: entry only says where to look. So one write of s: switches a whole stack at once.

local json = require "json"
local rules = require "rules"
local tallies = require "tallies"
local balancer = require "ngx.balancer"
local ssl = require "ngx.ssl"
local ocsp = require "ngx.ocsp"
local ffi = require "ffi"
local bit = require "bit"
local get_request = require("resty.core.base").get_request

ffi.cdef [[
int kill(int pid, int sig);
char *realpath(const char *path, char *resolved);
unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);
]]

local routes = ngx.shared.quarry_routes
local flights = ngx.shared.quarry_flights
local workers = ngx.shared.quarry_workers
local tls = ngx.shared.quarry_tls
local var = ngx.var
local now = ngx.now

-- How long a peer that refused a connection is passed over while others answer, in seconds.
local REST = 1
-- The same for one that did not answer at all: its server may be lost, and each try costs a request the connect timeout.
local LONG_REST = 10
-- Most peers tried for one request.
local TRIES = 5
-- Read and send timeout of an upgraded connection, in seconds.
local UPGRADED = 24 * 3600
-- Most certificates of one generation that a worker keeps ready; each costs some 30 kB.
local READY = 128
-- Most requests that wait in one worker for their stacks to be open again.
local MOST_WAITING = 4096
-- How often they look, in seconds.
local LOOK = 0.05
-- How long a challenge is answered, in seconds; no authority takes as long.
local CHALLENGE = 24 * 3600

local address = ffi.typeof("uintptr_t")

-- No peer tried yet.
local NONE = {}

local M = {}
local version
local pid
local page_text
-- Those that the configuration has, by digest.
local snippets
-- What follows the host in addresses of HTTPS; nil when nobody listens there.
local https

local WORDS = {
    [401] = { "Who are you?", "This page is only for people with a name and a password." },
    [403] = { "Not from here", "This page cannot be seen from where you are." },
    [404] = { "Nothing lives here", "There is no page at this address." },
    [405] = { "That does not work here", "These pages can only be read." },
    [411] = { "How much is it?", "What is sent here has to say its length." },
    [413] = { "Too much", "What was sent is larger than this site takes." },
    [429] = { "Not so fast", "Too many requests came from your address. Please try again in a moment." },
    [502] = { "The site did not answer", "It may be busy or about to come back. Please try again in a moment." },
    [503] = { "The site is resting", "It is not running at the moment. Please try again later." },
    [504] = { "The site took too long", "It did not answer in time. Please try again in a moment." },
}

local MAINTENANCE = { "Back soon", "This site is being worked on. Please try again later." }

-- Answers with one of the router's own pages, which say nothing about what runs behind it, or with the owner's own.
local function page(status, own, words)
    words = words or WORDS[status] or WORDS[502]
    local text = own
        or page_text:gsub("{{(%w+)}}", { status = tostring(status), title = words[1], text = words[2] })
    ngx.status = status
    ngx.header["Content-Type"] = "text/html; charset=utf-8"
    ngx.header["Content-Length"] = #text
    ngx.header["Cache-Control"] = "no-store"
    if status == 503 and not ngx.header["Retry-After"] then
        ngx.header["Retry-After"] = "5"
    end
    ngx.print(text)
    return ngx.exit(ngx.HTTP_OK)
end

-- The owner's page for a status.
local function own_page(node, status)
    local pages = node and node.rules and node.rules.pages
    return pages and pages[tostring(status)]
end

-- The name under which the configuration has a snippet: that of its digest.
local function snippet_name(text)
    local digest = ffi.new("unsigned char[32]")
    ffi.C.SHA256(text, #text, digest)
    local letters = {}
    for place = 0, 7 do
        letters[#letters + 1] = ("%02x"):format(digest[place])
    end
    return table.concat(letters)
end

-- Tables ---------------------------------------------------------------------------------------------------------

-- The table of the JSON text: { stack, domains = domain -> node, raw }; nil and why not when it is none.
local function read(raw)
    local ok, given = pcall(json.decode, raw)
    if not ok then
        return nil, given
    end
    if type(given) ~= "table" or type(given.stack) ~= "string" or type(given.nodes) ~= "table" then
        return nil, "not a table of routes"
    end
    local read = { stack = given.stack, nodes = {}, domains = {}, raw = raw }
    for name, node in pairs(given.nodes) do
        local target = node.target
        local made = { stack = given.stack, name = name, site = target.site, peers = {}, turn = 0 }
        made.grpc = node.protocol == "grpc"
        made.redirects, made.pass = node.redirects or NONE, node.pass
        made.mode = given.mode and given.mode.is ~= "open" and given.mode or nil
        if node.rules then
            local fit, why = pcall(rules.read, node.rules)
            if not fit then
                return nil, why
            end
            made.rules = why
            local snippet = node.rules.snippet and snippet_name(node.rules.snippet)
            -- A worker that is about to end has none that came after it.
            made.snippet = snippets[snippet or ""] and snippet
        end
        for place, peer in ipairs(target.peers or {}) do
            local host, port = peer.address:match("^(.+):(%d+)$")
            local key = peer.address .. "|" .. pid
            made.peers[place] = { host = host, port = tonumber(port), key = key, rests_until = 0 }
        end
        -- Workers start at different peers, so that the first container does not get every first request.
        made.turn = #made.peers > 1 and math.random(0, #made.peers - 1) or 0
        -- Whether every request that may be answered at all goes to a peer, and as it is.
        made.plain = #made.peers > 0 and not (made.mode or made.rules or made.grpc or made.pass) and next(made.redirects) == nil
        read.nodes[name] = made
        for _, domain in ipairs(node.domains) do
            if read.domains[domain] then
                return nil, "the domain `" .. domain .. "` is in two nodes"
            end
            read.domains[domain] = made
        end
    end
    return read
end

-- Read tables of this worker by stack name; as good as new while the text in shared memory is the same.
local cache = {}

local function table_of(stack)
    local raw = routes:get("s:" .. stack)
    local known = cache[stack]
    if known and known.raw == raw then
        return known
    end
    known = raw and read(raw) or nil
    cache[stack] = known
    return known
end

local function node_of(domain)
    local stack = routes:get("d:" .. domain)
    if not stack then
        return nil
    end
    local known = table_of(stack)
    return known and known.domains[domain]
end

-- Each change of a table adds 1 to `changes` before it and the rest of CHANGE after it. So while the number stays the
-- same and no change is under way, what a worker has looked up is as good as new: most requests read no table.
local CHANGE = 2 ^ 20

local function settled(changes)
    return changes % CHANGE == 0
end

local function change(make, ...)
    routes:incr("changes", 1)
    local ok, status, message = pcall(make, ...)
    routes:incr("changes", CHANGE - 1)
    if not ok then
        return 500, status
    end
    return status, message
end

-- Nodes by domain as this worker looked them up since `seen_at`.
local seen, seen_at = {}, nil

-- The node of exactly this host, as `changes` stands.
local function find(host, changes)
    if changes ~= seen_at then
        seen, seen_at = {}, settled(changes) and changes or nil
    end
    local node = seen[host]
    if node then
        return node
    end
    node = node_of(host)
    -- A look-up that a change overtook is not kept. Nor is a host that is no domain: there is no end of them.
    if node and seen_at and routes:get("changes") == changes then
        seen[host] = node
    end
    return node
end

-- The longest wildcard over a host; it stands for one label or more.
local function find_wildcard(host)
    local dot = host:find(".", 1, true)
    while dot do
        local node = node_of("*" .. host:sub(dot))
        if node then
            return node
        end
        dot = host:find(".", dot + 1, true)
    end
end

-- Certificates ---------------------------------------------------------------------------------------------------

-- The domain whose certificate is for this host: its own, or a wildcard's, which stands for exactly one label.
local function domain_of(host)
    if tls:get("v:" .. host) then
        return host
    end
    local dot = host:find(".", 1, true)
    local above = dot and "*" .. host:sub(dot)
    return above and tls:get("v:" .. above) and above
end

-- Certificates ready for handshakes by domain: those used of late, and those used before. When the young are many they
-- become the old, so that what nobody asks for is forgotten and memory has a bound.
local young, old, count = {}, {}, 0

local function make_ready(domain, raw)
    local given = json.decode(raw)
    local chain, no_chain = ssl.parse_pem_cert(given.chain)
    local key, no_key = ssl.parse_pem_priv_key(given.key)
    if not chain or not key then
        return nil, no_chain or no_key
    end
    local staple = given.staple
    local response = staple and ngx.decode_base64(staple.response)
    if response then
        -- One that its authority has not signed is worse than none.
        local ok, problem = ocsp.validate_ocsp_response(response, ssl.cert_pem_to_der(given.chain))
        if not ok then
            ngx.log(ngx.WARN, "nothing is said of the certificate of ", domain, ": ", problem)
            response = nil
        end
    end
    return { chain = chain, key = key, staple = response, staple_until = staple and staple["until"] or 0 }
end

local function certificate_of(domain)
    local version = tls:get("v:" .. domain)
    local known = young[domain]
    if known and known.version == version then
        return known
    end
    known = old[domain]
    if not known or known.version ~= version then
        local raw, problem = tls:get("c:" .. domain), nil
        if not raw then
            return nil
        end
        known, problem = make_ready(domain, raw)
        if not known then
            ngx.log(ngx.ERR, "the certificate of ", domain, " is damaged: ", problem)
            return nil
        end
        known.version = version
    end
    if count >= READY then
        young, old, count = {}, young, 0
    end
    young[domain], count = known, count + 1
    return known
end

-- Shows the certificate of the host that is asked for. Without one there is none to show: the handshake fails, and
-- nobody is taught to click warnings away.
function M.certify()
    local host = ssl.server_name()
    ssl.clear_certs()
    if not host then
        return
    end
    local domain = domain_of(host:lower():gsub("%.$", ""))
    local shown = domain and certificate_of(domain)
    if not shown then
        return
    end
    local ok, problem = ssl.set_cert(shown.chain)
    if ok then
        ok, problem = ssl.set_priv_key(shown.key)
    end
    if not ok then
        ngx.log(ngx.ERR, "the certificate of ", domain, " cannot be shown: ", problem)
    elseif shown.staple and shown.staple_until > ngx.time() then
        ocsp.set_ocsp_status_resp(shown.staple)
    end
end

-- Whether hosts have a certificate, as this worker looked them up since `secure_at`.
local secure, secure_at = {}, nil

local function is_secure(host, is_known)
    local changes = tls:get("changes")
    if changes ~= secure_at then
        secure, secure_at = {}, changes
    end
    local is = secure[host]
    if is == nil then
        is = domain_of(host) and true or false
        -- There is no end of hosts below a wildcard.
        if is_known then
            secure[host] = is
        end
    end
    return is
end

-- Requests -------------------------------------------------------------------------------------------------------

-- LuaJIT compiles a function whole when it has no loop, and most requests need none: so the loops stand apart.

-- A peer that was not tried yet and did not just refuse; else one that was not tried; else any.
local function search(peers, first, tried)
    local time, second = now(), nil
    for step = 0, #peers - 1 do
        local peer = peers[(first + step) % #peers + 1]
        if not tried[peer.key] then
            if peer.rests_until <= time then
                peer.rests_until = 0
                return peer
            end
            second = second or peer
        end
    end
    return second or peers[first % #peers + 1]
end

-- The next peer in turn, unless it is better passed over.
local function choose(node, tried)
    local peers, turn = node.peers, node.turn
    node.turn = turn + 1
    local peer = peers[turn % #peers + 1]
    if tried == NONE and peer.rests_until == 0 then
        return peer
    end
    return search(peers, turn, tried)
end

-- What is known of each request on its way to a peer, by the request's address in memory. ngx.ctx would be lost when an
-- error leads to a page, and with it the count.
local journeys = {}

local function id()
    local at = tonumber(ffi.cast(address, get_request()))
    return at
end

-- The names of requests: what this worker has drawn for all of its own, and their number, mixed with what else it has
-- drawn. So no two are the same, and none tells how many there were.
local drawn, mixers, number

local function draw()
    local lot = io.open("/dev/urandom", "rb")
    local bytes = { lot:read(28):byte(1, 28) }
    lot:close()
    local digits = {}
    for place = 1, 12 do
        digits[place] = ("%02x"):format(bytes[place])
    end
    mixers = {}
    for place = 1, 8 do
        mixers[place] = bytes[11 + 2 * place] * 256 + bytes[12 + 2 * place]
    end
    drawn, number = table.concat(digits), 0
end

local function mixed(half, factor, summand)
    return bit.band(half * factor + summand, 0xffff)
end

local function new_id()
    number = number + 1
    if number == 2 ^ 32 then
        draw()
    end
    local high, low = bit.rshift(number, 16), bit.band(number, 0xffff)
    high = bit.bxor(high, mixed(low, mixers[1], mixers[2]))
    low = bit.bxor(low, mixed(high, mixers[3], mixers[4]))
    high = bit.bxor(high, mixed(low, mixers[5], mixers[6]))
    low = bit.bxor(low, mixed(high, mixers[7], mixers[8]))
    return drawn .. bit.tohex(high, 4) .. bit.tohex(low, 4)
end

-- Requests of the usual kind by what nginx says of them: the host that each asks for. Whoever asked once in just these
-- words, and had nothing in the way but what its node's table says, is known the next time. See is_on_board().
local usual, usual_count = {}, 0
-- Most of them that a worker remembers.
local MOST_USUAL = 4096

-- Journeys of usual requests that are over, each with the next in `spare`: there is one for every request.
local spare

local function remember(host)
    local words = var.quarry_words
    if words == "" or usual[words] then
        return
    end
    if usual_count >= MOST_USUAL then
        usual, usual_count = {}, 0
    end
    usual[words], usual_count = host, usual_count + 1
end

-- The short way of most requests: true when this one is on board. The look at the table comes after the count, as in
-- board(); where it shows a change, or anything else is in the way, the request goes the long way as if it had just come.
local function is_on_board()
    local host = usual[var.quarry_words]
    local node = host and seen[host]
    if not node or not node.plain then
        return false
    end
    local peers, turn = node.peers, node.turn
    local peer = peers[turn % #peers + 1]
    if peer.rests_until ~= 0 then
        return false
    end
    flights:incr(peer.key, 1, 0)
    if routes:get("changes") ~= seen_at then
        flights:incr(peer.key, -1)
        return false
    end
    node.turn = turn + 1
    local journey = spare
    if journey then
        spare = journey.spare
    else
        journey = { tried = NONE, usual = true }
    end
    journey.node, journey.peer, journey.asked = node, peer, false
    journeys[id()] = journey
    var.quarry_id = new_id()
    var.quarry_stack = node.stack
    var.quarry_node = node.name
    return true
end

-- Chooses a peer of the node as the table names it now and counts the request there; nil when there is none. The
-- second look at the table comes after the count: so when a change of the table has been answered, each request that
-- chose by the old one is already counted, and whoever waits for the old peers to be quiet sees it.
local function board(journey, node, changes)
    if not node or #node.peers == 0 then
        return nil
    end
    local peer = choose(node, journey.tried)
    flights:incr(peer.key, 1, 0)
    local latest = routes:get("changes")
    local same = node
    if latest ~= changes or not settled(latest) then
        local current = table_of(node.stack)
        same = current and current.nodes[node.name]
    end
    if same == node then
        journey.node, journey.peer = node, peer
        return peer
    end
    flights:incr(peer.key, -1)
    return board(journey, same, latest)
end

local function land(journey)
    if journey.peer then
        flights:incr(journey.peer.key, -1)
        journey.peer = nil
    end
end

-- Files such as .git and .env lie in many repositories, and none of them is meant for visitors.
local function is_private(path)
    return path:gsub("^/%.well%-known/", "/", 1):find("/.", 1, true) ~= nil
end

-- Whether a Host header is this host in some spelling.
local function is_spelling(named, host)
    if named:sub(1, #host) == host and named:find("^:%d+$", #host + 1) then
        return true
    end
    return named:lower():gsub(":%d+$", ""):gsub("%.$", "") == host
end

local function is_safe(method)
    return method == "GET" or method == "HEAD" or method == "OPTIONS"
end

local function lead(address)
    local method = var.request_method
    return ngx.redirect(address, (method == "GET" or method == "HEAD") and 301 or 308)
end

-- The address of this request by HTTPS at a host. Visitors of a balancer come to that one's ports.
local function secure_address(host)
    local port = https or ""
    if var.quarry_trusted == "1" then
        local said = var.quarry_scheme == "https" and var.http_x_forwarded_port or ""
        port = said:find("^%d+$") and said ~= "443" and ":" .. said or ""
    end
    return "https://" .. host .. port .. var.request_uri
end

-- Where a visitor of this host is led to instead; nil when nowhere. Nobody is led from HTTPS back to HTTP.
local function elsewhere(node, host)
    local to = node.redirects[host] or (node.rules and node.rules.redirect and node.rules.redirect[host])
    if not to then
        return nil
    end
    if var.quarry_scheme == "https" or (https and is_secure(to, false)) then
        return secure_address(to)
    end
    local port = var.quarry_port
    return "http://" .. to .. (port == "80" and "" or ":" .. port) .. var.request_uri
end

-- Requests that wait, of this worker.
local waiting = 0

-- The node of the host as the tables stand, and where they stand.
local function look_up(host)
    local changes = routes:get("changes")
    local known = find(host, changes)
    return known or find_wildcard(host), changes, known
end

-- Waits until a stack that is paused is open again. The node as it is then; nil when that takes too long, or too many
-- wait already.
local function hold(node, host)
    local since = now()
    if waiting >= MOST_WAITING then
        return nil
    end
    waiting = waiting + 1
    local changes
    -- A visitor who has gone is not known to have before it is over: the connection is not read meanwhile.
    while node and node.mode and node.mode.is == "paused" and now() - since < node.mode.hold / 1000 do
        ngx.sleep(LOOK)
        node, changes = look_up(host)
    end
    waiting = waiting - 1
    if node and not node.mode then
        return node, changes
    end
    return nil
end

-- Whether a router of another server asks, which does for its visitor what there is to be done.
local function is_fellow(node)
    return node.pass and node.site and var.http_quarry_router == node.pass
end

-- What stands between a request and its node: nil when nothing does, else it has been answered.
local function met(node, host, known)
    if https and var.quarry_scheme ~= "https" and is_secure(host, known) then
        lead(secure_address(host))
        return true
    end
    local own = node.rules
    local mode = node.mode
    if mode and mode.is == "maintenance" then
        ngx.header["Retry-After"] = "300"
        page(503, mode.page or own_page(node, 503), MAINTENANCE)
        return true
    end
    local address = elsewhere(node, host)
    if address then
        lead(address)
        return true
    end
    if own and own.checks then
        local status, wait = rules.refuse(node, own)
        if status then
            ngx.header["Retry-After"] = wait
            page(status, own_page(node, status))
            return true
        end
    end
    return false
end

-- Whether a request may have a body although its method has none usually and no length is said: HTTP/2 does not tell.
local function may_surprise(method)
    return (is_safe(method) or method == "DELETE") and var.server_protocol == "HTTP/2.0" and not var.http_content_length
end

local function has_body()
    local length = var.http_content_length
    return (length and length ~= "0") or var.http_transfer_encoding
end

-- Another location than the usual one that the node's requests need; nil when none.
local function location(node, fellow)
    if node.site then
        return node.snippet and not fellow and "@files_" .. node.snippet or "@site"
    elseif node.grpc then
        return nil
    end
    local method = var.request_method
    local surprise = may_surprise(method)
    if node.snippet then
        return (surprise and "@small_" or "@node_") .. node.snippet
    elseif node.rules and node.rules.buffering then
        return surprise and "@buffered_small" or "@buffered"
    elseif surprise then
        return is_safe(method) and "@small" or "@small_body"
    elseif not is_safe(method) or has_body() then
        return "@body"
    end
end

-- Whether the next request in the same words needs no look at them. Such that may have a body or are not safe went to
-- another location before.
local function is_usual()
    local is_led = https and var.quarry_scheme ~= "https"
    return not (is_led or var.http_content_length or var.http_upgrade)
end

-- `moved`: it came from one location to another, and everything has been looked at.
local function route(moved)
    local host = var.host
    local node, changes, known = look_up(host)
    if not node then
        return page(404)
    end
    local fellow = is_fellow(node)
    -- The index of a folder of a site is looked for anew, and whoever asks has come in.
    local again = moved or (node.site and ngx.req.is_internal())
    if not moved then
        var.quarry_id = new_id()
        var.quarry_stack = node.stack
        var.quarry_node = node.name
        if node.rules and node.rules.hsts and not fellow and var.quarry_scheme == "https" then
            var.quarry_hsts_wanted = node.rules.hsts
        end
    end
    if not again and not fellow and met(node, host, known) then
        return
    end
    if node.mode and not again and not fellow then
        local resting = node
        node, changes = hold(node, host)
        if not node then
            return page(503, own_page(resting, 503))
        end
    end
    if node.site and not moved then
        var.quarry_root = node.site
        if is_private(var.uri) then
            return ngx.exit(404)
        end
    end
    local to = not moved and location(node, fellow)
    if to then
        if is_safe(var.request_method) and not has_body() then
            var.quarry_upstream = "quarry_pooled"
        end
        return ngx.exec(to)
    end
    local journey = { tried = NONE }
    if not board(journey, node, changes) then
        return page(503, own_page(node, 503))
    end
    journeys[id()] = journey
    if node.pass then
        var.quarry_pass = node.pass
    end
    -- The app sees the client's own spelling with its port, but never another host than the one it was routed by.
    local named = var.http_host
    if named ~= host and not (named and is_spelling(named, host)) then
        var.quarry_host = host
    elseif known and not moved and node.plain and is_usual() then
        remember(host)
    end
    if node.grpc then
        return ngx.exec("@grpc")
    end
end

function M.route()
    if not is_on_board() then
        return route(false)
    end
end

function M.route_body()
    return route(true)
end

-- Answers an authority that asks whether a domain leads here. It asks for domains that lead to HTTPS, and for those that
-- no stack has yet, too.
function M.challenge()
    local token = var.uri:match("^/%.well%-known/acme%-challenge/([%w_-]+)$")
    local text = token and tls:get("h:" .. token)
    if not text then
        return route(false)
    end
    ngx.header["Content-Type"] = "text/plain"
    ngx.header["Content-Length"] = #text
    ngx.print(text)
    return ngx.exit(ngx.HTTP_OK)
end

-- Names the peer of this try. Called again when a try failed before anything of the answer arrived.
function M.balance()
    local journey = journeys[id()]
    local peer = journey.peer
    if not journey.asked then
        journey.asked = true
        local more = math.min(#journey.node.peers, TRIES) - 1
        if more > 0 then
            balancer.set_more_tries(more)
        end
    else
        local _, status = balancer.get_last_failure()
        peer.rests_until = now() + (status == 504 and LONG_REST or REST)
        if journey.tried == NONE then
            journey.tried = {}
        end
        journey.tried[peer.key] = true
        land(journey)
        peer = board(journey, journey.node, nil)
        if not peer then
            return ngx.exit(ngx.ERROR)
        end
    end
    -- A usual one has neither.
    local own = journey.node.rules
    if not journey.usual and var.quarry_upgrade ~= "" then
        balancer.set_timeouts(nil, UPGRADED, UPGRADED)
    elseif own and own.timeout then
        balancer.set_timeouts(nil, own.timeout, own.timeout)
    end
    local ok, problem = balancer.set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "no peer: ", problem)
        return ngx.exit(ngx.ERROR)
    end
end

function M.fail()
    local status = ngx.status
    status = WORDS[status] and status or 502
    local stack, name = var.quarry_stack, var.quarry_node
    local known = stack ~= "" and table_of(stack)
    return page(status, own_page(known and known.nodes[name], status))
end

-- The last thing of every request, also of one whose client went away.
function M.finish()
    local at = id()
    local journey = journeys[at]
    local stack = journey and journey.node.stack or var.quarry_stack
    if not journey and ngx.status < 100 then
        -- Nothing was answered: the record would have a number that begins with 0, which JSON does not know.
        ngx.status = 499
    elseif journey then
        journeys[at] = nil
        land(journey)
        if journey.usual and journey.tried == NONE then
            journey.node, journey.spare, spare = nil, spare, journey
        end
    end
    if stack ~= "" then
        tallies.count(stack, ngx.status, now() - ngx.req.start_time())
    end
end

local resolved = ffi.new("char[4096]")

-- The path without links, nil when there is nothing.
local function real(path)
    -- Behind a NUL the kernel would not see the rest of what was checked.
    if path:find("\0", 1, true) or ffi.C.realpath(path, resolved) == nil then
        return nil
    end
    return ffi.string(resolved)
end

-- nginx follows no link of a site, as it may lead to another stack's files. One that stays inside is followed here, and
-- nginx gets the real name, so that it looks again itself.
function M.elsewhere()
    local root = var.quarry_root
    local base, uri = real(root), var.uri
    for _, ending in ipairs { "", "/index.html", ".html" } do
        local found = base and real(root .. uri .. ending)
        if found and found:sub(1, #base + 1) == base .. "/" then
            local path = found:sub(#base + 1)
            if is_private(path) then
                return ngx.exit(404)
            elseif not real(found .. "/.") then
                return ngx.req.set_uri(path, false)
            elseif uri:sub(-1) ~= "/" then
                return ngx.redirect(ngx.escape_uri(uri, 0):gsub("%%2F", "/") .. "/", 301)
            end
        end
    end
    return ngx.exit(404)
end

-- Start ----------------------------------------------------------------------------------------------------------

local function contents(path)
    local file = io.open(ngx.config.prefix() .. path, "rb")
    if not file then
        return nil
    end
    local text = file:read("*a")
    file:close()
    return text
end

-- Takes a table in, in an order in which no request sees a mixture; status and message for HQ.
local function take_in(stack, raw)
    local new, problem = read(raw)
    if not new or new.stack ~= stack then
        return 400, problem or "the table is of another stack"
    end
    local old = table_of(stack)
    for domain in pairs(new.domains) do
        local owner = routes:get("d:" .. domain)
        local theirs = owner and owner ~= stack and table_of(owner)
        if theirs and theirs.domains[domain] then
            return 409, "the domain `" .. domain .. "` belongs to the stack `" .. owner .. "`"
        end
    end
    local stored = true
    for domain in pairs(new.domains) do
        stored = stored and routes:safe_set("d:" .. domain, stack)
    end
    stored = stored and routes:safe_set("s:" .. stack, raw)
    if not stored then
        -- A write that finds no room drops the entry it was to replace.
        if old then
            routes:set("s:" .. stack, old.raw)
        end
        return 507, "no room left in the router's memory"
    end
    for domain in pairs(old and old.domains or {}) do
        if not new.domains[domain] and routes:get("d:" .. domain) == stack then
            routes:delete("d:" .. domain)
        end
    end
    return 204
end

local function take_out(stack)
    local old = table_of(stack)
    routes:delete("s:" .. stack)
    cache[stack] = nil
    for domain in pairs(old and old.domains or {}) do
        if routes:get("d:" .. domain) == stack then
            routes:delete("d:" .. domain)
        end
    end
    return 204
end

-- What HQ wrote down: one table a line, a later line of a stack covers an earlier one, one without nodes removes it.
-- A last line without its end was cut off by a crash before HQ counted on it.
local function recall()
    local last, order = {}, {}
    for line in (contents("routes.jsonl") or ""):gmatch("([^\n]*)\n") do
        local stack = line:match('^{"stack":"([^"]+)"')
        if stack then
            if last[stack] == nil then
                order[#order + 1] = stack
            end
            last[stack] = line
        end
    end
    for _, stack in ipairs(order) do
        if last[stack]:find('"nodes":', 1, true) then
            local status, problem = take_in(stack, last[stack])
            if status ~= 204 then
                ngx.log(ngx.ERR, "routes of ", stack, " left out: ", problem)
            end
        end
    end
    cache = {}
end

-- Status and message for HQ.
local function put_certificate(domain, raw)
    local old_raw = tls:get("c:" .. domain)
    if not tls:safe_set("c:" .. domain, raw) then
        -- A write that finds no room drops the entry it was to replace.
        if old_raw then
            tls:set("c:" .. domain, old_raw)
        end
        return 507, "no room left in the router's memory"
    end
    tls:set("v:" .. domain, tls:incr("changes", 1, 0))
    return 204
end

local function take_certificate(domain)
    tls:delete("v:" .. domain)
    tls:delete("c:" .. domain)
    tls:incr("changes", 1, 0)
    return 204
end

-- The certificates HQ wrote down, in lines like those of the tables.
local function recall_certificates()
    local last = {}
    for line in (contents("certificates.jsonl") or ""):gmatch("([^\n]*)\n") do
        local domain = line:match('^{"domain":"([^"]+)"')
        if domain then
            last[domain] = line
        end
    end
    for domain, line in pairs(last) do
        if line:find('"chain":', 1, true) then
            local status, problem = put_certificate(domain, line)
            if status ~= 204 then
                ngx.log(ngx.ERR, "the certificate of ", domain, " is left out: ", problem)
            end
        end
    end
end

function M.start(text_version, https_port, known_snippets)
    version, snippets = text_version, known_snippets
    https = https_port and (https_port == 443 and "" or ":" .. https_port)
    pid = "0"
    page_text = assert(contents("text-" .. version .. "/page.html"), "page.html is missing")
    -- On a reload the shared memory is still there, and newer than the file could be.
    routes:add("changes", 0)
    if not routes:get("recalled") then
        recall()
        recall_certificates()
        routes:set("recalled", true)
    end
end

function M.start_worker()
    pid = tostring(ngx.worker.pid())
    cache, seen, seen_at = {}, {}, nil
    young, old, count, secure_at = {}, {}, 0, nil
    draw()
    math.randomseed(ngx.worker.pid() + math.floor(now() * 1000) % 100000)
    workers:set(pid, true)
    tallies.start_worker()
end

-- What HQ asks ---------------------------------------------------------------------------------------------------

-- Only of workers that live: one that crashed has dropped its connections, and what it counted counts no longer.
local function in_flight(peer)
    local sum = 0
    for _, worker in ipairs(workers:get_keys(0)) do
        if ffi.C.kill(tonumber(worker), 0) == 0 then
            sum = sum + (flights:get(peer .. "|" .. worker) or 0)
        else
            workers:delete(worker)
        end
    end
    return sum
end

local function stacks()
    local raws = {}
    for _, key in ipairs(routes:get_keys(0)) do
        if key:sub(1, 2) == "s:" then
            raws[#raws + 1] = routes:get(key)
        end
    end
    return "[" .. table.concat(raws, ",\n") .. "]"
end

local function quoted(text)
    return '"' .. text .. '"'
end

-- Everything in quarry_tls as JSON. A challenge's token and answer have no character that JSON escapes.
local function tls_state()
    local certificates, challenges = {}, {}
    for _, key in ipairs(tls:get_keys(0)) do
        local kind, name = key:sub(1, 2), key:sub(3)
        local value = tls:get(key)
        if kind == "c:" and value then
            certificates[#certificates + 1] = value
        elseif kind == "h:" and value then
            challenges[#challenges + 1] = '{"token":' .. quoted(name) .. ',"answer":' .. quoted(value) .. "}"
        end
    end
    return '{"certificates":[' .. table.concat(certificates, ",\n") .. '],"challenges":['
        .. table.concat(challenges, ",\n") .. "]}"
end

local function set_certificate(domain, raw)
    local ok, given = pcall(json.decode, raw)
    if not ok or given.domain ~= domain then
        return 400, ok and "the certificate is of another domain" or given
    end
    local ready, problem = make_ready(domain, raw)
    if not ready then
        return 400, problem
    end
    return put_certificate(domain, raw)
end

local function set_challenge(token, text)
    if not text:find("^[%w._-]+$") then
        return 400, "an answer to a challenge has letters, digits, `.`, `_` and `-`"
    end
    local ok, problem = tls:safe_set("h:" .. token, text, CHALLENGE)
    return ok and 204 or 507, problem
end

local function answer(status, text)
    ngx.status = status
    if text then
        ngx.header["Content-Length"] = #text
        ngx.print(text)
    end
    return ngx.exit(ngx.HTTP_OK)
end

local function control_tls(method, path)
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    local domain = path:match("^/tls/certificates/([a-z0-9.*-]+)$")
    local token = path:match("^/tls/challenges/([%w_-]+)$")
    if method == "GET" and path == "/tls" then
        return answer(200, tls_state())
    elseif method == "PUT" and domain then
        return answer(set_certificate(domain, body))
    elseif method == "DELETE" and domain then
        return answer(take_certificate(domain))
    elseif method == "PUT" and token then
        return answer(set_challenge(token, body))
    elseif method == "DELETE" and token then
        tls:delete("h:" .. token)
        return answer(204)
    end
    return answer(404, "the router knows no such request")
end

function M.control()
    local method, path = ngx.req.get_method(), var.uri
    if path:sub(1, 4) == "/tls" then
        return control_tls(method, path)
    end
    local stack = path:match("^/stacks/([a-z0-9-]+)$")
    if method == "GET" and path == "/ping" then
        return answer(200, version)
    elseif method == "GET" and path == "/stacks" then
        return answer(200, stacks())
    elseif method == "GET" and path == "/in-flight" then
        return answer(200, tostring(in_flight(var.arg_peer or "")))
    elseif method == "GET" and path == "/tallies" then
        return answer(200, tallies.text())
    elseif method == "PUT" and stack then
        ngx.req.read_body()
        return answer(change(take_in, stack, ngx.req.get_body_data() or ""))
    elseif method == "DELETE" and stack then
        return answer(change(take_out, stack))
    end
    return answer(404, "the router knows no such request")
end

return M
