-- What is done with a request on the way to its node besides passing it on: who may come in, how often, with how much.
--
-- Shared memory, seen by all workers:
--   quarry_rates    <interval>|<stack>|<node>|<client>    when the client has caught up with its rate, in milliseconds
--                   a|<stack>|<node>|<client>             the same for its wrong passwords
--                   a|<stack>|<node>                      the same for those of all clients together
--                   r|<seal>                              a password that was found right, by its seal

local ffi = require "ffi"
local bit = require "bit"

ffi.cdef [[
int inet_pton(int af, const char *src, void *dst);
char *crypt(const char *phrase, const char *setting);
]]

local rates = ngx.shared.quarry_rates
local var = ngx.var

-- Passwords that one client may get wrong at once, and how long it takes until it may try one more, in milliseconds.
local GUESSES, GUESS = 10, 2000
-- The same for all clients of a node together: a worker does nothing else while it checks one.
local ALL_GUESSES, ANY_GUESS = 40, 500
-- Largest body that is collected where nothing else is said, in megabytes; nginx.conf has it for @buffered, too.
local COLLECTED = 100
-- How long a password that was found right is remembered, in seconds.
local REMEMBERED = 24 * 3600

local M = {}

-- Addresses -------------------------------------------------------------------------------------------------------

local bytes = ffi.new("unsigned char[16]")

-- The bytes of an address and how many bits of it count; nil when it is none.
local function net(text)
    local address, bits = text:match("^([^/]+)/?(%d*)$")
    local is_ipv6 = address and address:find(":", 1, true)
    local length = is_ipv6 and 16 or 4
    if not address or ffi.C.inet_pton(is_ipv6 and 10 or 2, address, bytes) ~= 1 then
        return nil
    end
    return { bytes = ffi.string(bytes, length), bits = tonumber(bits) or length * 8 }
end

local function is_within(address, one)
    if #address ~= #one.bytes then
        return false
    end
    local whole = math.floor(one.bits / 8)
    if address:sub(1, whole) ~= one.bytes:sub(1, whole) then
        return false
    end
    local rest = one.bits % 8
    if rest == 0 then
        return true
    end
    local both = bit.bxor(address:byte(whole + 1), one.bytes:byte(whole + 1))
    return bit.rshift(both, 8 - rest) == 0
end

local function is_among(nets, address)
    for _, one in ipairs(nets) do
        if is_within(address, one) then
            return true
        end
    end
    return false
end

-- How many bytes of an address tell one client from another: whoever has an IPv6 address has 2^64 of them.
local function one_client(address)
    return #address == 16 and address:sub(1, 8) or address
end

-- IPv4 that came in over an IPv6 socket is IPv4.
local function client()
    local address = var.binary_remote_addr
    if #address == 16 and address:sub(1, 12) == ("\0"):rep(10) .. "\255\255" then
        return address:sub(13)
    end
    return address
end

-- Rates -----------------------------------------------------------------------------------------------------------

-- Counts one event of this key, of which one is due every `interval` milliseconds and `burst` may come at once. Returns
-- nil, or the milliseconds after which the next one is welcome. Two workers that look at the same instant may let one
-- more pass.
local function exceeds(key, interval, burst)
    ngx.update_time()
    local now = ngx.now() * 1000
    local caught_up = math.max(rates:get(key) or 0, now)
    local wait = caught_up + interval - now - interval * burst
    if wait > 0.001 then
        return wait
    end
    local next_time = caught_up + interval
    -- Where there is no room the oldest go: they have caught up long since.
    rates:set(key, next_time, math.max((next_time - now) / 1000, 1))
    return nil
end

-- Passwords -------------------------------------------------------------------------------------------------------

-- What a right password is remembered by: nothing leads back from it.
local function seal_of(login, password, auth)
    local hash = auth[login]
    return hash and "r|" .. ngx.sha1_bin(hash .. "\0" .. password)
end

local function is_right(login, password, auth)
    local hash = auth[login]
    -- A name that nobody has takes as long.
    local setting = hash or select(2, next(auth))
    local made = not password:find("\0", 1, true) and ffi.C.crypt(password, setting)
    if not made or made == nil or not hash or ffi.string(made) ~= hash then
        return false
    end
    rates:set(seal_of(login, password, auth), true, REMEMBERED)
    return true
end

-- For how many seconds nobody may guess under this key; nil when one may.
local function guessed_out(key, guesses, guess)
    local wait = (rates:get(key) or 0) - ngx.now() * 1000 - guesses * guess
    return wait > 0 and math.ceil(wait / 1000) or nil
end

-- Nil when the visitor is known, else the status to answer with.
local function stranger(node, rules, address)
    local given = var.http_authorization
    local encoded = given and given:match("^[Bb][Aa][Ss][Ii][Cc] +(%S+)$")
    local decoded = encoded and ngx.decode_base64(encoded)
    local login, password = (decoded or ""):match("^([^:]+):(.*)$")
    if login then
        local seal = seal_of(login, password, rules.auth)
        if seal and rates:get(seal) then
            return nil
        end
        local any = "a|" .. node.stack .. "|" .. node.name
        local one = any .. "|" .. one_client(address)
        local wait = guessed_out(one, GUESSES, GUESS) or guessed_out(any, ALL_GUESSES, ANY_GUESS)
        if wait then
            return 429, wait
        end
        if is_right(login, password, rules.auth) then
            return nil
        end
        exceeds(one, GUESS, GUESSES + 1)
        exceeds(any, ANY_GUESS, ALL_GUESSES + 1)
    end
    ngx.header["WWW-Authenticate"] = 'Basic realm="' .. node.stack .. '", charset="UTF-8"'
    return 401
end

-- Rules -----------------------------------------------------------------------------------------------------------

local function each(list, make)
    local made = {}
    for place, one in ipairs(list or {}) do
        made[place] = make(one) or error("`" .. one .. "` is no address", 0)
    end
    return made
end

-- The rules of a node ready for requests; raises a message when they are none.
function M.read(given)
    local rules = {
        redirect = given.redirect,
        -- What is collected lies on the router's disk meanwhile.
        body = (given.body or (given.buffering and COLLECTED)) and (given.body or COLLECTED) * 1024 * 1024,
        -- One whose length nobody says is cut off by nginx at that.
        exact = given.body ~= nil,
        timeout = given.timeout and given.timeout / 1000,
        buffering = given.buffering,
        auth = given.auth,
        allow = each(given.allow, net),
        deny = each(given.deny, net),
        hsts = given.hsts,
        pages = given.pages,
    }
    if given.rate then
        rules.interval = given.rate.per * 1000 / given.rate.count
        rules.burst = given.rate.burst
    end
    rules.checks = rules.body or rules.auth or rules.interval or #rules.allow > 0 or #rules.deny > 0
    return rules
end

-- The status with which a request is refused, and after how many seconds it may come again; nil when it is welcome.
function M.refuse(node, rules)
    local address = client()
    if is_among(rules.deny, address) or (#rules.allow > 0 and not is_among(rules.allow, address)) then
        return 403
    end
    if rules.interval then
        -- A rate that is changed begins anew.
        local key = rules.interval .. "|" .. node.stack .. "|" .. node.name .. "|" .. one_client(address)
        local wait = exceeds(key, rules.interval, rules.burst)
        if wait then
            return 429, math.ceil(wait / 1000)
        end
    end
    if rules.auth then
        local status, wait = stranger(node, rules, address)
        if status then
            return status, wait
        end
    end
    if rules.body then
        local length = tonumber(var.http_content_length)
        if length and length > rules.body then
            return 413
        end
        local method = var.request_method
        local may_have_one = method ~= "GET" and method ~= "HEAD" and method ~= "OPTIONS" and method ~= "DELETE"
        -- One whose length nobody says would have to be taken in before it could be refused.
        if rules.exact and not length and (var.http_transfer_encoding or (may_have_one and var.server_protocol == "HTTP/2.0")) then
            return 411
        end
    end
    return nil
end

return M
