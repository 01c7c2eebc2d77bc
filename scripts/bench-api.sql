-- Gives every app a history of :versions releases, of which every tenth deployed something, and the events of those. What is
-- there of each app, an empty release and one with config vars, becomes its first and its newest. Portable; ids are scattered as
-- random ones are, by multiplication modulo a prime.

INSERT INTO images (digest, document, created_at) VALUES (
    'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
    '{"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","layers":[],"config":{"env":{},"entrypoint":[],"working_dir":"/app","labels":{}},"processes":[{"process_type":"web","command":["node"],"args":["server.js"]}]}',
    1700000000000
);

UPDATE releases SET version = :versions WHERE version = 2;
UPDATE apps SET last_version = :versions;

INSERT INTO builds (id, app_id, user_id, commit_id, status, buildpacks, size_bytes, output_secret, created_at, updated_at, subject)
WITH RECURSIVE n(v) AS (SELECT CAST(5 AS BIGINT) UNION ALL SELECT v + 10 FROM n WHERE v + 10 < :versions)
SELECT
    substr(CAST(100000000 + (a.uid * 1000 + n.v) * 48271 % 99999989 AS TEXT), 2) || '-0000-4000-9000-' || substr(CAST(1000000000000 + a.uid * 1000 + n.v AS TEXT), 2),
    a.id, r.user_id, '1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d', 'succeeded', '["platform/nodejs@1.0.0"]', 12345678,
    substr(CAST(100000000 + (a.uid * 1000 + n.v) * 69621 % 99999989 AS TEXT), 2) || '00000000000000000000' || substr(CAST(1000000000000 + a.uid * 1000 + n.v AS TEXT), 2),
    1700000000000 + n.v * 86400000, 1700000000000 + n.v * 86400000, 'Make the search of orders faster'
FROM n CROSS JOIN apps a JOIN releases r ON r.id = a.current_release_id
ORDER BY n.v, a.uid;

-- Once something was deployed, every release runs the newest build before it.
INSERT INTO releases (id, app_id, version, description, user_id, image, build_id, config, status, output_secret, created_at, updated_at, attached, slug_id, formation, attachments, config_changes)
WITH RECURSIVE n(v) AS (SELECT CAST(2 AS BIGINT) UNION ALL SELECT v + 1 FROM n WHERE v + 1 < :versions)
SELECT
    substr(CAST(100000000 + (a.uid * 1000 + n.v) * 48271 % 99999989 AS TEXT), 2) || '-0000-4000-8000-' || substr(CAST(1000000000000 + a.uid * 1000 + n.v AS TEXT), 2),
    a.id, n.v,
    CASE WHEN n.v % 10 = 5 THEN 'Deploy 1a2b3c4d' ELSE 'Set LOG_LEVEL, FEATURE_FLAGS config vars' END,
    r.user_id,
    CASE WHEN n.v >= 5 THEN 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef' END,
    CASE WHEN n.v % 10 = 5 THEN b.id END,
    r.config, 'succeeded',
    substr(CAST(100000000 + (a.uid * 1000 + n.v) * 69621 % 99999989 AS TEXT), 2) || '00000000000000000000' || substr(CAST(1000000000000 + a.uid * 1000 + n.v AS TEXT), 2),
    1700000000000 + n.v * 86400000, 1700000000000 + n.v * 86400000, r.attached, b.id,
    '{"web":{"quantity":0,"size":"Standard-1X"}}', r.attachments,
    CASE WHEN n.v % 10 = 5 THEN '{}' ELSE '{"LOG_LEVEL":"changed","FEATURE_FLAGS":"changed"}' END
FROM n CROSS JOIN apps a
JOIN releases r ON r.id = a.current_release_id
LEFT JOIN builds b ON b.id = substr(CAST(100000000 + (a.uid * 1000 + (n.v - 5) / 10 * 10 + 5) * 48271 % 99999989 AS TEXT), 2)
    || '-0000-4000-9000-' || substr(CAST(1000000000000 + a.uid * 1000 + (n.v - 5) / 10 * 10 + 5 AS TEXT), 2) AND n.v >= 5
ORDER BY n.v, a.uid;

UPDATE releases SET
    image = (SELECT digest FROM images),
    slug_id = (SELECT o.slug_id FROM releases o WHERE o.app_id = releases.app_id AND o.version = :versions - 1)
WHERE version = :versions;

INSERT INTO formation (id, app_id, process_type, quantity, size, created_at, updated_at)
SELECT substr(CAST(100000000 + uid * 48271 % 99999989 AS TEXT), 2) || '-0000-4000-a000-' || substr(CAST(1000000000000 + uid AS TEXT), 2),
    id, 'web', 0, 'Standard-1X', created_at, created_at
FROM apps;

INSERT INTO events (sequence, id, app_id, app_name, actor_id, actor_email, via, address, request_id, resource, resource_id, action, data, created_at)
SELECT
    (SELECT value FROM counters WHERE name = 'events') + row_number() OVER (ORDER BY r.version, a.uid),
    substr(CAST(100000000 + (a.uid * 1000 + r.version) * 48271 % 99999989 AS TEXT), 2) || '-0000-4000-b000-' || substr(CAST(1000000000000 + a.uid * 1000 + r.version AS TEXT), 2),
    a.id, a.name, r.user_id, 'bench@localhost', 'token 01234567-89ab-cdef-0123-456789abcdef', '192.0.2.1', '01234567-89ab-cdef-0123-456789abcdef',
    'release', r.id, 'create', '{"version":' || CAST(r.version AS TEXT) || ',"description":"' || r.description || '","status":"succeeded"}', a.created_at
FROM releases r JOIN apps a ON a.id = r.app_id WHERE r.version BETWEEN 2 AND :versions - 1
ORDER BY r.version, a.uid;

UPDATE counters SET value = (SELECT max(sequence) FROM events) WHERE name = 'events';
