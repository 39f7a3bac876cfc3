package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sidestream-dev/sidestream/runtime"
)

func topicPath(topic, what string) string { return "/v1/topics/" + url.PathEscape(topic) + what }

// Seek sets the subscriptions of a job on a topic elsewhere.
func (c *Client) Seek(ctx context.Context, topic string, r SeekRequest) (moved []runtime.Moved, err error) {
	err = c.callLong(ctx, http.MethodPost, topicPath(topic, "/seek"), r, &moved)
	return moved, err
}

// Detach ends the subscriptions of a job on a topic.
func (c *Client) Detach(ctx context.Context, topic string, r DetachRequest) (gone []runtime.Moved, err error) {
	err = c.callLong(ctx, http.MethodPost, topicPath(topic, "/detach"), r, &gone)
	return gone, err
}

// Purge lets go of a topic's records before a place.
func (c *Client) Purge(ctx context.Context, topic string, r PurgeRequest) (res runtime.PurgeResult, err error) {
	err = c.callLong(ctx, http.MethodPost, topicPath(topic, "/purge"), r, &res)
	return res, err
}

// RemoveTopic removes a topic with all its records; a dry run says what would go.
func (c *Client) RemoveTopic(ctx context.Context, topic string, dryRun bool) (res runtime.TopicRemoval, err error) {
	v := url.Values{"dry_run": {strconv.FormatBool(dryRun)}}
	err = c.call(ctx, http.MethodDelete, topicPath(topic, "?"+v.Encode()), nil, &res)
	return res, err
}

// SetRetention says how long a topic keeps what every subscription has passed.
func (c *Client) SetRetention(ctx context.Context, topic string, r RetentionRequest) (res TopicRetention, err error) {
	err = c.callLong(ctx, http.MethodPut, topicPath(topic, "/retention"), r, &res)
	return res, err
}
